package testkit

import (
	"crypto/sha256"
	"fmt"
	iofs "io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// A tree is a table with one object a line. Words may be quoted as in Go. Parents without a line
// are made:
//
//	dir     PATH [MODE]             0755 by default
//	file    PATH [MODE] ["TEXT"]    0644 by default
//	link    PATH EXISTING           hard link
//	symlink PATH TARGET
//	fifo    PATH [MODE]
//	sock    PATH [MODE]
//	char    PATH MAJOR/MINOR [MODE]
//	block   PATH MAJOR/MINOR [MODE]
//	white   PATH                    whiteout: character device 0/0
//	opaque  PATH [MODE]             directory with trusted.overlay.opaque
//	xattr   PATH NAME VALUE
//	own     PATH UID GID
//	size    PATH BYTES              truncates, or extends with a hole

// Build makes the objects of a table in a folder.
func Build(t *testing.T, dir, table string) {
	t.Helper()
	for line := range strings.SplitSeq(table, "\n") {
		words, err := Words(line)
		if err == nil && len(words) > 0 {
			err = buildLine(dir, append(words, make([]string, 3)...))
		}
		if err != nil {
			t.Fatalf("line %q: %v", strings.TrimSpace(line), err)
		}
	}
}

func buildLine(dir string, words []string) error {
	path, arg := filepath.Join(dir, words[1]), words[2:]
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if mode, ok := kinds[words[0]]; ok {
		return buildNode(path, mode, arg)
	}
	switch words[0] {
	case "opaque":
		if err := buildNode(path, unix.S_IFDIR|0o755, arg); err != nil {
			return err
		}
		return unix.Lsetxattr(path, "trusted.overlay.opaque", []byte("y"), 0)
	case "white":
		return unix.Mknod(path, unix.S_IFCHR, 0)
	case "link":
		return os.Link(filepath.Join(dir, arg[0]), path)
	case "xattr":
		return unix.Lsetxattr(path, arg[0], []byte(arg[1]), 0)
	case "own":
		var uid, gid int
		if _, err := fmt.Sscan(arg[0], &uid); err != nil {
			return err
		}
		if _, err := fmt.Sscan(arg[1], &gid); err != nil {
			return err
		}
		return os.Lchown(path, uid, gid)
	case "size":
		size, err := strconv.ParseInt(arg[0], 10, 64)
		if err != nil {
			return err
		}
		return os.Truncate(path, size)
	}
	return fmt.Errorf("unknown word %q", words[0])
}

// kinds are the words that make an object, with its type and usual permissions.
var kinds = map[string]uint32{
	"dir": unix.S_IFDIR | 0o755, "file": unix.S_IFREG | 0o644, "symlink": unix.S_IFLNK, "fifo": unix.S_IFIFO | 0o644,
	"sock": unix.S_IFSOCK | 0o644, "char": unix.S_IFCHR | 0o644, "block": unix.S_IFBLK | 0o644,
}

func buildNode(path string, mode uint32, arg []string) error {
	var err error
	kind := mode & unix.S_IFMT
	switch kind {
	case unix.S_IFLNK:
		return os.Symlink(arg[0], path)
	case unix.S_IFDIR:
		err = os.MkdirAll(path, 0o755)
	case unix.S_IFREG:
		text := arg[1]
		if _, ok := modeOf(arg[0]); !ok {
			text = arg[0]
		}
		err = os.WriteFile(path, []byte(text), 0o644)
	case unix.S_IFCHR, unix.S_IFBLK:
		var major, minor uint32
		if _, err := fmt.Sscanf(arg[0], "%d/%d", &major, &minor); err != nil {
			return err
		}
		arg = arg[1:]
		err = unix.Mknod(path, mode, int(unix.Mkdev(major, minor)))
	default:
		err = unix.Mknod(path, mode, 0)
	}
	if err != nil {
		return err
	}
	if perm, ok := modeOf(arg[0]); ok {
		mode = perm
	}
	return unix.Chmod(path, mode&0o7777)
}

func modeOf(s string) (uint32, bool) {
	mode, err := strconv.ParseUint(s, 8, 12)
	return uint32(mode), err == nil && len(s) == 4
}

// Words splits a line at blanks outside of Go quotes.
func Words(line string) ([]string, error) {
	var words []string
	for rest := strings.TrimSpace(line); rest != ""; rest = strings.TrimSpace(rest) {
		if rest[0] != '"' {
			word, after, _ := strings.Cut(rest, " ")
			words, rest = append(words, word), after
			continue
		}
		literal, err := strconv.QuotedPrefix(rest)
		if err != nil {
			return nil, err
		}
		word, err := strconv.Unquote(literal)
		if err != nil {
			return nil, err
		}
		words, rest = append(words, word), rest[len(literal):]
	}
	return words, nil
}

// Object is one object in a snapshot: everything but numbers and times.
type Object struct {
	Path     string
	Mode     uint32 // with the type
	UID, GID uint32
	Rdev     uint64
	Target   string // of a symbolic link
	Data     []byte // of a regular file
	Xattrs   map[string]string
}

// String is the line of a table, with owner and extended attributes at its end where there are any.
func (o *Object) String() string {
	var b strings.Builder
	kind := o.Mode & unix.S_IFMT
	if kind == unix.S_IFCHR && o.Rdev == 0 {
		return "white " + o.Path
	}
	for word, mode := range kinds {
		if mode&unix.S_IFMT == kind {
			fmt.Fprintf(&b, "%s %s", word, o.Path)
		}
	}
	switch kind {
	case unix.S_IFLNK:
		b.WriteString(" " + o.Target)
	case unix.S_IFCHR, unix.S_IFBLK:
		fmt.Fprintf(&b, " %d/%d %04o", unix.Major(o.Rdev), unix.Minor(o.Rdev), o.Mode&0o7777)
	case unix.S_IFREG:
		fmt.Fprintf(&b, " %04o %s", o.Mode&0o7777, Quoted(string(o.Data)))
	default:
		fmt.Fprintf(&b, " %04o", o.Mode&0o7777)
	}
	if o.UID != 0 || o.GID != 0 {
		fmt.Fprintf(&b, " own %d %d", o.UID, o.GID)
	}
	var xattrs []string
	for name, value := range o.Xattrs {
		xattrs = append(xattrs, fmt.Sprintf(" %s=%s", name, Quoted(value)))
	}
	slices.Sort(xattrs)
	b.WriteString(strings.Join(xattrs, ""))
	return b.String()
}

// Quoted returns a short text as it is, and the beginning, size and sum of a long one.
func Quoted(text string) string {
	if len(text) <= 64 {
		return strconv.Quote(text)
	}
	sum := sha256.Sum256([]byte(text))
	return fmt.Sprintf("%q...%d bytes %x", text[:8], len(text), sum[:6])
}

// Snapshot returns the table of a folder: one object a line, sorted.
func Snapshot(t *testing.T, dir string) string {
	t.Helper()
	var lines []string
	err := filepath.WalkDir(dir, func(path string, _ iofs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		o, err := Read(path)
		if err != nil {
			return err
		}
		if o.Path, err = filepath.Rel(dir, path); err != nil {
			return err
		}
		lines = append(lines, o.String())
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// Read reads the object at a path, without its Path.
func Read(path string) (*Object, error) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return nil, err
	}
	o := &Object{Mode: st.Mode, UID: st.Uid, GID: st.Gid, Rdev: st.Rdev, Xattrs: map[string]string{}}
	buf := make([]byte, 64<<10)
	n, err := unix.Llistxattr(path, buf)
	if err != nil && err != unix.EOPNOTSUPP {
		return nil, err
	}
	for name := range strings.SplitSeq(string(buf[:max(n, 0)]), "\x00") {
		if name == "" || isOrigin(name) {
			continue
		}
		value := make([]byte, 64<<10)
		n, err := unix.Lgetxattr(path, name, value)
		if err != nil {
			return nil, err
		}
		o.Xattrs[name] = string(value[:n])
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		o.Data, err = os.ReadFile(path)
	case unix.S_IFLNK:
		o.Target, err = os.Readlink(path)
	default:
		err = nil
	}
	return o, err
}

// isOrigin reports whether an attribute records where the objects of an upper came from. These
// differ in uppers with the same objects.
func isOrigin(name string) bool {
	what, ok := strings.CutPrefix(name, "trusted.overlay.")
	if !ok {
		what, ok = strings.CutPrefix(name, "user.overlay.")
	}
	return ok && (what == "origin" || what == "impure" || what == "uuid")
}

// Want fails the test if a folder does not hold exactly the objects of a table.
func Want(t *testing.T, what, dir, table string) {
	t.Helper()
	want := t.TempDir()
	Build(t, want, table)
	if d := Diff(Snapshot(t, want), Snapshot(t, dir)); d != "" {
		t.Errorf("%s differs (- want, + have):\n%s", what, d)
	}
}

// Diff returns the lines that differ: "- " before those of a alone, "+ " before those of b alone.
func Diff(a, b string) string {
	var out []string
	was, is := strings.Split(a, "\n"), strings.Split(b, "\n")
	for _, line := range was {
		if line != "" && !slices.Contains(is, line) {
			out = append(out, "- "+line)
		}
	}
	for _, line := range is {
		if line != "" && !slices.Contains(was, line) {
			out = append(out, "+ "+line)
		}
	}
	return strings.Join(out, "\n")
}
