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
	"testing"

	"golang.org/x/sys/unix"
)

func KindOf(path string) uint32 {
	var st unix.Stat_t
	if unix.Lstat(path, &st) != nil {
		return 0
	}
	return st.Mode & unix.S_IFMT
}

func Digest(data []byte) string {
	if len(data) < 40 {
		return strconv.Quote(string(data))
	}
	sum := sha256.Sum256(data)
	return fmt.Sprintf("%x", sum[:8])
}

// NoLinksView compares what users see, but for numbers of links.
var NoLinksView = View{Mode: true, Owner: true, Xattrs: true}

func Clip(s string) string {
	if len(s) > 6000 {
		return s[:6000] + "..."
	}
	return s
}

// View says what a snapshot shows of each object besides type, path, symlink target, device number and content.
type View struct {
	Mode, Owner, Nlink, DirNlink, Xattrs, Mtime bool
	// skip leaves objects (and what is below them) out.
	Skip func(rel string) bool
	// xattr leaves one attribute out, or shows it under another name; nil shows all as they are.
	Xattr func(rel, name string) (string, bool)
	// also tells more of an object; nil tells nothing.
	Also func(rel string, st *unix.Stat_t) string
}

var (
	PlainView = View{}                                                                // types and contents
	FullView  = View{Mode: true, Owner: true, Nlink: true, Xattrs: true}              // what users see
	ExactView = View{Mode: true, Owner: true, Nlink: true, Xattrs: true, Mtime: true} // and the old mtimes
)

// Snapshot walks a tree to canonical lines, in the words of the tables where there is one. A directory that carries an
// opaque mark reads "opaque", a whiteout "white".
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
			var st unix.Stat_t
			if unix.Lstat(path, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR {
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
	var b strings.Builder
	isDir := false
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		isDir = true
		word := "dir"
		for _, n := range []string{"trusted.overlay.opaque", "user.overlay.opaque", "user.fuseoverlayfs.opaque"} {
			if slices.Contains(names, n) && !v.Xattrs {
				word = "opaque"
			}
		}
		fmt.Fprintf(&b, "%s %s", word, Word(rel))
	case unix.S_IFREG:
		text, err := contentOf(path, st.Size)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&b, "file %s %s", Word(rel), text)
	case unix.S_IFLNK:
		target, err := os.Readlink(path)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&b, "symlink %s %s", Word(rel), Word(target))
	case unix.S_IFIFO:
		fmt.Fprintf(&b, "fifo %s", Word(rel))
	case unix.S_IFSOCK:
		fmt.Fprintf(&b, "sock %s", Word(rel))
	case unix.S_IFCHR, unix.S_IFBLK:
		word := map[bool]string{true: "char", false: "block"}[st.Mode&unix.S_IFMT == unix.S_IFCHR]
		if word == "char" && st.Rdev == 0 {
			return "white " + Word(rel), nil
		}
		fmt.Fprintf(&b, "%s %s %d/%d", word, Word(rel), unix.Major(st.Rdev), unix.Minor(st.Rdev))
	}
	if v.Mode && st.Mode&unix.S_IFMT != unix.S_IFLNK {
		fmt.Fprintf(&b, " %04o", st.Mode&0o7777)
	}
	if v.Owner {
		fmt.Fprintf(&b, " own %d:%d", st.Uid, st.Gid)
	}
	if v.Nlink && !isDir || v.DirNlink && isDir {
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

// TimeClass is the time for times set by tests, all long ago, and "now" for those set by events.
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

func XattrNames(path string) ([]string, error) {
	buf := make([]byte, 4096)
	n, err := unix.Llistxattr(path, buf)
	if err == unix.ERANGE {
		buf = make([]byte, 65536)
		n, err = unix.Llistxattr(path, buf)
	}
	if err == unix.EOPNOTSUPP {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("listxattr: %w", err)
	}
	return slices.DeleteFunc(strings.Split(string(buf[:n]), "\x00"), func(s string) bool { return s == "" }), nil
}

func GetXattr(path, name string) (string, error) {
	buf := make([]byte, 65536)
	n, err := unix.Lgetxattr(path, name, buf)
	if err != nil {
		return "", err
	}
	return string(buf[:n]), nil
}

// contentOf is the quoted text of short files, the size and a hash of others. It reads as the user would: to the end.
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
	var head [49]byte
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

// shortText is how contentOf shows a text.
func shortText(s string) string {
	if len(s) < 49 {
		return strconv.Quote(s)
	}
	sum := sha256.Sum256([]byte(s))
	return fmt.Sprintf("size %d sha %x", len(s), sum[:8])
}

// Word quotes a word only where a table needs it.
func Word(s string) string {
	if q := strconv.Quote(s); len(q) != len(s)+2 || s == "" || strings.ContainsAny(s, " #") {
		return q
	}
	return s
}

// DiffLines tells the differences of two snapshots, sorted by path; empty when there is none.
func DiffLines(want, got map[string]string) string {
	var paths []string
	for p := range want {
		paths = append(paths, p)
	}
	for p := range got {
		if _, both := want[p]; !both {
			paths = append(paths, p)
		}
	}
	slices.Sort(paths)
	var b strings.Builder
	for _, p := range paths {
		w, inWant := want[p]
		g, inGot := got[p]
		if w == g {
			continue
		}
		if inWant {
			fmt.Fprintf(&b, "  want %s\n", w)
		}
		if inGot {
			fmt.Fprintf(&b, "  got  %s\n", g)
		}
	}
	return b.String()
}

// HidePrivate leaves the attributes out in which an upper keeps what only the overlay file system needs.
func HidePrivate(_, name string) (string, bool) {
	return name, !strings.HasPrefix(name, "trusted.overlay.") && !strings.HasPrefix(name, "user.overlay.")
}

// CompareTrees fails when what lies in two folders does not look the same.
func CompareTrees(t *testing.T, what, wantDir, gotDir string, v View) {
	t.Helper()
	want, err := Snapshot(wantDir, v)
	Check(t, err)
	got, err := Snapshot(gotDir, v)
	Check(t, err)
	delete(want, ".")
	delete(got, ".")
	if d := DiffLines(want, got); d != "" {
		t.Errorf("%s differs:\n%s", what, d)
	}
}

// WantTree compares types, names and contents under dir with a table; parents need not be named.
func WantTree(t *testing.T, what, dir, table string) {
	t.Helper()
	want := map[string]string{}
	for line := range strings.SplitSeq(table, "\n") {
		words, err := SplitWords(line)
		Check(t, err)
		if len(words) < 2 {
			continue
		}
		for i := range words[1:] {
			if words[0] == "file" && i == 1 {
				words[i+1] = shortText(words[i+1])
			} else {
				words[i+1] = Word(words[i+1])
			}
		}
		path, err := SplitWords(words[1])
		Check(t, err)
		want[path[0]] = strings.Join(words, " ")
		for p := filepath.Dir(path[0]); p != "."; p = filepath.Dir(p) {
			if _, named := want[p]; !named {
				want[p] = "dir " + Word(p)
			}
		}
	}
	got, err := Snapshot(dir, PlainView)
	Check(t, err)
	for p, line := range got {
		if word, ok := strings.CutPrefix(line, "opaque"); ok && want[p] == "dir"+word {
			got[p] = want[p] // a mark on a new directory, which may hide nothing
		}
	}
	if d := DiffLines(want, got); d != "" {
		t.Errorf("%s differs:\n%s", what, d)
	}
}
