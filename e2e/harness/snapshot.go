package harness

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// View selects what a snapshot shows of each object besides type, path, symlink target, device
// number and content.
type View struct {
	Mode, Owner, Nlink, DirNlink, Xattrs, Mtime bool
	// Skip leaves an object and all below it out.
	Skip func(rel string) bool
	// Xattr leaves an xattr out, or renames it. If it is nil, all xattrs are shown as they are.
	Xattr func(rel, name string) (shown string, ok bool)
	// Also adds a text of the test's own to each line.
	Also func(rel string, st *unix.Stat_t) string
}

// The usual views.
var (
	PlainView = View{} // types and contents
	// FullView without numbers of links.
	NoLinksView = View{Mode: true, Owner: true, Xattrs: true}
	FullView    = View{Mode: true, Owner: true, Nlink: true, Xattrs: true}              // what users see
	ExactView   = View{Mode: true, Owner: true, Nlink: true, Xattrs: true, Mtime: true} // and the mtimes before the test
)

// HidePrivate is an Xattr function for View: it leaves out the xattrs of the overlay.
func HidePrivate(_, name string) (string, bool) {
	return name, !strings.HasPrefix(name, "trusted.overlay.") && !strings.HasPrefix(name, "user.overlay.")
}

// Snapshot describes each object below dir in one line, in the words of the tables where there is
// one. A directory with an opaque xattr is "opaque", a whiteout is "white".
func Snapshot(dir string, v View) (map[string]string, error) {
	lines := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		if v.Skip != nil && v.Skip(rel) {
			if KindOf(path) == unix.S_IFDIR {
				return filepath.SkipDir
			}
			return nil
		}
		line, err := describe(path, rel, v)
		if err != nil {
			return fmt.Errorf("%s: %w", rel, err)
		}
		if rel != "." || v.Mode {
			lines[rel] = line
		}
		return nil
	})
	return lines, err
}

func describe(path, rel string, v View) (string, error) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return "", err
	}
	names, err := XattrNames(path)
	if err != nil {
		return "", err
	}
	kind := st.Mode & unix.S_IFMT
	line, err := describeKind(path, rel, &st, !v.Xattrs && isOpaque(names))
	if err != nil || kind == unix.S_IFCHR && st.Rdev == 0 {
		return line, err
	}
	var b strings.Builder
	b.WriteString(line)
	if v.Mode && kind != unix.S_IFLNK {
		fmt.Fprintf(&b, " %04o", st.Mode&0o7777)
	}
	if v.Owner {
		fmt.Fprintf(&b, " own %d:%d", st.Uid, st.Gid)
	}
	if isDir := kind == unix.S_IFDIR; v.Nlink && !isDir || v.DirNlink && isDir {
		fmt.Fprintf(&b, " nlink %d", st.Nlink)
	}
	if v.Mtime {
		b.WriteString(" mtime " + TimeClass(st.Mtim))
	}
	if v.Also != nil {
		b.WriteString(v.Also(rel, &st))
	}
	if v.Xattrs {
		if err := describeXattrs(&b, path, rel, names, v); err != nil {
			return "", err
		}
	}
	return b.String(), nil
}

// isOpaque reports whether an opaque xattr is among names.
func isOpaque(names []string) bool {
	return slices.ContainsFunc(names, func(name string) bool {
		return slices.Contains([]string{"trusted.overlay.opaque", "user.overlay.opaque", "user.fuseoverlayfs.opaque"}, name)
	})
}

// describeKind is the part of a line that all views have.
func describeKind(path, rel string, st *unix.Stat_t, opaque bool) (string, error) {
	name := Word(rel)
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		if opaque {
			return "opaque " + name, nil
		}
		return "dir " + name, nil
	case unix.S_IFREG:
		text, err := contentOf(path, st.Size)
		return "file " + name + " " + text, err
	case unix.S_IFLNK:
		target, err := os.Readlink(path)
		return "symlink " + name + " " + Word(target), err
	case unix.S_IFIFO:
		return "fifo " + name, nil
	case unix.S_IFSOCK:
		return "sock " + name, nil
	case unix.S_IFBLK:
		return fmt.Sprintf("block %s %d/%d", name, unix.Major(st.Rdev), unix.Minor(st.Rdev)), nil
	}
	if st.Rdev == 0 {
		return "white " + name, nil
	}
	return fmt.Sprintf("char %s %d/%d", name, unix.Major(st.Rdev), unix.Minor(st.Rdev)), nil
}

// TimeClass is the time itself if a test has set it (all these are long ago), and "now" otherwise.
func TimeClass(ts unix.Timespec) string {
	if ts.Sec > OldTime.Unix()+1_000_000 {
		return "now"
	}
	return fmt.Sprintf("%d.%09d", ts.Sec, ts.Nsec)
}

func describeXattrs(b *strings.Builder, path, rel string, names []string, v View) error {
	var shown []string
	for _, name := range names {
		as, ok := name, true
		if v.Xattr != nil {
			as, ok = v.Xattr(rel, name)
		}
		if !ok {
			continue
		}
		value, err := GetXattr(path, name)
		if err != nil {
			return fmt.Errorf("xattr %s: %w", name, err)
		}
		shown = append(shown, fmt.Sprintf(" %s=%s", as, Brief(value)))
	}
	slices.Sort(shown)
	b.WriteString(strings.Join(shown, ""))
	return nil
}

// headSize is the length from which on a content is shown by its size and sum.
const headSize = 49

// contentOf is the quoted text of a short file, and size and sum of any other. It reads to the end,
// as users do, so it finds a size that is wrong.
func contentOf(path string, size int64) (string, error) {
	f, err := os.Open(path)
	if errors.Is(err, unix.EACCES) && size == 0 {
		return strconv.Quote(""), nil // a whiteout in the tar form
	}
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	var head [headSize]byte
	n, err := io.ReadFull(f, head[:])
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		if int64(n) != size {
			return "", fmt.Errorf("st_size is %d, but %d bytes can be read", size, n)
		}
		return strconv.Quote(string(head[:n])), nil
	}
	if err != nil {
		return "", err
	}
	h.Write(head[:n])
	m, err := io.Copy(h, f)
	if err != nil {
		return "", err
	}
	if int64(n)+m != size {
		return "", fmt.Errorf("st_size is %d, but %d bytes can be read", size, int64(n)+m)
	}
	return fmt.Sprintf("size %d sha %x", size, h.Sum(nil)[:8]), nil
}

// ContentWord shows a content as the line of a file does.
func ContentWord(s string) string {
	if len(s) < headSize {
		return strconv.Quote(s)
	}
	sum := sha256.Sum256([]byte(s))
	return fmt.Sprintf("size %d sha %x", len(s), sum[:8])
}
