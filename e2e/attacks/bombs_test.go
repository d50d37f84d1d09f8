package attacks

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// bombSize is the number of names of each directory of TestBombs, times the factor.
const bombSize = 1000

// linksOfInode is a number of links that the file systems of tests permit (ext4: 65000 at most).
const linksOfInode = 30000

// linked makes count names of one object, or of as few as the file system permits.
func linked(t *testing.T, count int, name func(i int) string, first func(path string) error) {
	t.Helper()
	for i := range count {
		if i%linksOfInode == 0 {
			harness.Check(t, first(name(i)))
		} else {
			harness.Check(t, os.Link(name(i-i%linksOfInode), name(i)))
		}
	}
}

// residentMemory is the memory of a process in bytes.
func residentMemory(t *testing.T, pid int) int {
	t.Helper()
	m := regexp.MustCompile(`VmRSS:\s+(\d+) kB`).FindStringSubmatch(harness.ReadText(t, fmt.Sprintf("/proc/%d/status", pid)))
	if m == nil {
		t.Fatal("no VmRSS")
	}
	size, err := strconv.Atoi(m[1])
	harness.Check(t, err)
	return size << 10
}

// Directories full of whiteouts of all forms, deep nests of opaque directories and files with very
// many links show what they hide and hold, cost memory in proportion, and can be removed.
func TestBombs(t *testing.T) {
	harness.NeedDaemon(t)
	size := bombSize * factor()
	depth := min(size, 1500)
	harness.EachMode(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		o := e.Overlay(t, "dir devices\ndir markers\ndir links\ndir xattrs\nfile devices/seen\nfile markers/seen\nfile xattrs/seen",
			"file devices/w0\nfile markers/w0\nfile xattrs/w0\nfile hidden-at-the-bottom")
		top := o.Lowers[0]
		noted := func(dir string) func(int) string {
			return func(i int) string { return fmt.Sprintf("%s/%s/w%d", top, dir, i) }
		}
		linked(t, size, noted("devices"), func(path string) error { return unix.Mknod(path, unix.S_IFCHR, 0) })
		linked(t, size, func(i int) string { return fmt.Sprintf("%s/markers/.wh.w%d", top, i) },
			func(path string) error { return os.WriteFile(path, nil, 0o644) })
		linked(t, size, noted("xattrs"), func(path string) error {
			return errors.Join(os.WriteFile(path, nil, 0o644), unix.Setxattr(path, e.XattrPrefix()+"whiteout", nil, 0))
		})
		harness.Check(t, unix.Setxattr(top+"/xattrs", e.OpaqueName(), []byte("x"), 0))
		links := min(size, linksOfInode)
		linked(t, links, noted("links"), func(path string) error { return os.WriteFile(path, []byte("linked"), 0o644) })
		deep := deepNest(t, e, top, depth)
		o.Opts = append(o.Opts, "index=on")
		o.Mount()
		before := residentMemory(t, o.PID)
		for _, dir := range []string{"devices", "markers", "xattrs"} {
			harness.WantNames(t, o.Path(dir), "seen")
			harness.WantAbsent(t, o.Path(dir+"/w0"))
		}
		names, err := os.ReadDir(o.Path("links"))
		harness.Check(t, err)
		harness.Equal(t, "names of the file with many links", len(names), links)
		harness.AppendTo(t, o.Path("links/w0"), "+")
		other := map[bool]string{true: "linked+", false: "linked"}[e.Mode != harness.ModeFusermount] // index=on needs root
		harness.WantText(t, o.Path(fmt.Sprintf("links/w%d", links-1)), other)
		root := harness.Open(t, o.Point, os.O_RDONLY)
		harness.Equal(t, "the depth of the nest in the mount", walkDown(t, root, deep), depth)
		harness.Check(t, root.Close())
		// 1 KiB for each name, and what the Go runtime has free.
		if grown := residentMemory(t, o.PID) - before; grown > 4*size<<10+64<<20 {
			t.Errorf("the daemon's memory has grown by %d MiB for %d names", grown>>20, 4*size)
		}
		o.Remount() // the harness ends a mount that is too old
		for _, dir := range []string{"devices", "markers", "xattrs", "links"} {
			harness.Check(t, os.RemoveAll(o.Path(dir)))
			harness.WantAbsent(t, o.Path(dir))
		}
		harness.Shell(t, o.Point, "rm -r "+deep)
		o.Remount()
		harness.WantNames(t, o.Point, "hidden-at-the-bottom")
		o.Unmount()
		harness.Shell(t, e.Dir, "rm -r "+top+" "+o.Upper+"; mkdir "+top+" "+o.Upper) // os.RemoveAll would be slow
		t.Logf("%d whiteouts, %d links, %d nested opaque directories", 3*size, links, depth)
	})
}

// deepNest makes opaque directories in each other, and returns the name of the topmost.
func deepNest(t *testing.T, e *harness.Env, layer string, depth int) string {
	t.Helper()
	const name = "nest"
	at, err := unix.Open(layer, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	harness.Check(t, err)
	for range depth {
		harness.Check(t, unix.Mkdirat(at, name, 0o755))
		next, err := unix.Openat(at, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		harness.Check(t, err)
		harness.Check(t, unix.Fsetxattr(next, e.OpaqueName(), []byte("y"), 0))
		harness.Check(t, unix.Close(at))
		at = next
	}
	harness.Check(t, unix.Close(at))
	return name
}

// walkDown returns how many directories of a name lie in each other.
func walkDown(t *testing.T, root *os.File, name string) (depth int) {
	t.Helper()
	at, err := unix.Openat(int(root.Fd()), name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	for ; err == nil; depth++ {
		var next int
		next, err = unix.Openat(at, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		harness.Check(t, unix.Close(at))
		at = next
	}
	harness.WantErr(t, "below the nest", err, unix.ENOENT)
	return depth
}

// Names that look like the overlay's own, and names of any bytes, are names like any other, in
// layers and through the mount. Only those that begin with .wh. are absent, and cannot be made.
func TestNamesLikeOurs(t *testing.T) {
	harness.NeedDaemon(t)
	plain := []string{
		"work", "index", "incompat", "#1", "#ffff", "volatile", "dirty", "lost+found", "wh.f", ".wh", ".WH.f", "trusted.overlay.opaque",
		".fuse_hidden0000000100000001", "...", "..a", " ", "~", "-rf", "a\nb", "\x1b[2J", "\x01", "\x7f", "\xff\xfe", "\xc0\xaf", "\xe2\x80\xae",
		strings.Repeat("n", 255), strings.Repeat("\xff", 255), "%s%n%x", "$(id)", "`id`", "a:b", "a,b", "a\\b", "\"", "'",
	}
	markers := []string{".wh.", ".wh..", ".wh.f", ".wh..wh.", ".wh..wh..opq", ".wh..wh.plnk", ".wh..wh.aufs", ".wh.\xff", ".wh..wh.f"}
	harness.EachMode(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		o := e.Overlay(t, "dir d", "file d/f\nfile d/lower")
		for _, name := range append(plain, ".wh.\n", ".wh.absent", ".wh..wh.f") {
			harness.Write(t, filepath.Join(o.Lowers[0], "d", name), "of a lower")
		}
		o.Mount()
		want := append([]string{"f", "lower"}, plain...)
		harness.WantNames(t, o.Path("d"), want...)
		for _, name := range plain {
			path := o.Path("d/" + name)
			harness.WantText(t, path, "of a lower")
			harness.AppendTo(t, path, "+")
			harness.Check(t, os.Remove(path))
			harness.WantAbsent(t, path)
			harness.Write(t, path, "new")
			harness.Check(t, os.Rename(path, o.Path("d/moved")))
			harness.Check(t, os.Rename(o.Path("d/moved"), path))
		}
		for _, name := range markers {
			path := o.Path("d/" + name)
			harness.WantAbsent(t, path)
			if err := os.WriteFile(path, nil, 0o644); err == nil {
				t.Errorf("a file %q was made", name)
			}
			if err := os.Mkdir(path, 0o755); err == nil {
				t.Errorf("a directory %q was made", name)
			}
			if err := os.Rename(o.Path("d/f"), path); err == nil {
				t.Errorf("a file was renamed to %q", name)
			}
		}
		o.Remount()
		harness.WantNames(t, o.Path("d"), want...)
		for _, name := range plain {
			harness.WantText(t, o.Path("d/"+name), "new")
		}
		text := harness.ReadText(t, o.Log)
		if strings.ContainsAny(text, "\x1b\x01\x7f") {
			t.Error("a name's control characters are in the log as they are")
		}
	})
}
