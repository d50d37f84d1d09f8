package view

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

func oddNames() []string {
	list := []string{"new\nline", "quote\"s", "apostro'phe", "back\\slash", "tab\t", " blanks ", "-dash", "~", "a,b=c:d",
		"\x01\x02", "%s%n", "...", "*?[]", "ünï", "日本語", ".whx", ".hidden", "#tmp"}
	var high strings.Builder
	for c := 0x80; c <= 0xff; c++ {
		high.WriteByte(byte(c))
	}
	return append(list, high.String())
}

func TestOddNames(t *testing.T) {
	harness.EachMode(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		var table strings.Builder
		for _, name := range oddNames() {
			fmt.Fprintf(&table, "file %q %q\nfile %q %q\n", name, name, "dir "+name+"/"+name, name)
		}
		o := e.Mounted(t, table.String())
		harness.WantTree(t, "the lower's names", o.Point, table.String())
		for _, name := range oddNames() {
			harness.AppendTo(t, o.Path(name), "+")
			harness.Check(t, os.Rename(o.Path(name), o.Path("n"+name)))
			harness.Check(t, os.Remove(o.Path("dir "+name+"/"+name)))
			harness.Write(t, o.Path("dir "+name+"/2"+name), name)
		}
		table.Reset()
		for _, name := range oddNames() {
			fmt.Fprintf(&table, "file %q %q\nfile %q %q\n", "n"+name, name+"+", "dir "+name+"/2"+name, name)
		}
		harness.WantTree(t, "changed names", o.Point, table.String())
		o.Remount()
		harness.WantTree(t, "changed names after a remount", o.Point, table.String())
	})
}

// Names of 255 bytes work. Other programs refuse them, because they add a prefix.
func TestLongNames(t *testing.T) {
	harness.EachMode(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		long := func(c string) string { return strings.Repeat(c, 255) }
		o := e.Mounted(t, fmt.Sprintf("file %s \"x\"\nfile %s \"x\"\nfile %s/%s \"x\"\nsymlink %s x",
			long("a"), long("b"), long("d"), long("e"), long("s")))
		harness.AppendTo(t, o.Path(long("a")), "+")
		harness.Check(t, os.Remove(o.Path(long("b"))))
		harness.Check(t, os.Remove(o.Path(long("s"))))
		harness.Check(t, os.RemoveAll(o.Path(long("d"))))
		harness.Check(t, os.Mkdir(o.Path(long("d")), 0o755))
		harness.Write(t, o.Path(long("n")), "new")
		harness.Check(t, os.Rename(o.Path(long("n")), o.Path(long("b"))))
		harness.Check(t, os.Link(o.Path(long("b")), o.Path(long("l"))))
		want := fmt.Sprintf("file %s \"x+\"\nfile %s \"new\"\nfile %s \"new\"\ndir %s", long("a"), long("b"), long("l"),
			long("d"))
		harness.WantTree(t, "merged", o.Point, want)
		o.Remount()
		harness.WantTree(t, "merged after a remount", o.Point, want)
		_, err := os.Lstat(o.Path(long("x") + "x"))
		harness.WantErr(t, "256 bytes: lstat", err, syscall.ENAMETOOLONG)
		harness.WantErr(t, "256 bytes: mkdir", os.Mkdir(o.Path(long("x")+"x"), 0o755), syscall.ENAMETOOLONG)
		harness.WantErr(t, "256 bytes: create", os.WriteFile(o.Path(long("x")+"x"), nil, 0o644), syscall.ENAMETOOLONG)
	})
}

// Names of up to 255 bytes can be removed, renamed and made again, in whichever form whiteouts are
// written.
func TestLongNamesInEachForm(t *testing.T) {
	harness.NeedDaemon(t)
	for form, variable := range map[string]string{"": "", "markers": "y", "xattr_whiteouts": "y"} {
		t.Run(form, func(t *testing.T) {
			harness.EachPolicy(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
				t.Setenv("FUSE_OVERLAYFS_DISABLE_OVL_WHITEOUT", variable)
				var table strings.Builder
				names := map[int]func(string) string{}
				for length := 248; length <= 255; length++ {
					n := func(c string) string { return fmt.Sprintf("%s%d", c, length) + strings.Repeat("n", length-4) }
					names[length] = n
					fmt.Fprintf(&table, "file %s \"x\"\nfile %s \"x\"\nfile %s/f \"x\"\ndir %s\nfile %s \"x\"\nfile %s \"x\"\nsymlink %s x\nfile %s \"x\"\n",
						n("f"), n("u"), n("d"), n("e"), n("m"), n("o"), n("s"), n("k"))
				}
				o := e.Overlay(t, table.String(), table.String())
				if form == "xattr_whiteouts" {
					o.Opts = append(o.Opts, form)
				}
				o.Mount()
				var want strings.Builder
				for length, n := range names {
					harness.Check(t, os.Remove(o.Path(n("f"))))
					harness.AppendTo(t, o.Path(n("u")), "+")
					harness.Check(t, os.Remove(o.Path(n("u"))))
					harness.Write(t, o.Path(n("d"))+"/new", "x")
					harness.Check(t, os.RemoveAll(o.Path(n("d"))))
					harness.Check(t, os.Remove(o.Path(n("e"))))
					harness.Check(t, os.Remove(o.Path(n("s"))))
					harness.Check(t, os.Rename(o.Path(n("m")), o.Path(n("t")))) // to a free name
					harness.Check(t, os.Rename(o.Path(n("o")), o.Path(n("k")))) // over another
					harness.Check(t, os.Mkdir(o.Path(n("f")), 0o755))           // over whiteouts
					harness.Write(t, o.Path(n("d")), "new")
					harness.Check(t, os.Rename(o.Path(n("d")), o.Path(n("u"))))
					harness.Check(t, os.Link(o.Path(n("u")), o.Path(n("s"))))
					fmt.Fprintf(&want, "dir %s\nfile %s \"x\"\nfile %s \"x\"\nfile %s \"new\"\nfile %s \"new\"\n",
						n("f"), n("t"), n("k"), n("u"), n("s"))
					_, marker := os.Lstat(filepath.Join(o.Upper, ".wh."+n("e")))
					harness.Equal(t, fmt.Sprintf("%d bytes: a marker", length), marker == nil, form == "markers" && length+4 <= 255)
				}
				harness.WantTree(t, "merged", o.Point, want.String())
				o.Remount()
				harness.WantTree(t, "merged after a remount", o.Point, want.String())
				o.Unmount()
				if variable != "" {
					harness.Equal(t, "devices in the upper", harness.Shell(t, o.Upper, "find . -type c | wc -l"), "0\n")
				}
				os.Unsetenv("FUSE_OVERLAYFS_DISABLE_OVL_WHITEOUT")
				o.Lowers, o.Upper, o.Opts = append([]string{o.Upper}, o.Lowers...), "", nil
				o.Mount()
				harness.WantTree(t, "as a lower", o.Point, want.String())
			})
		})
	}
}

// A tree deeper than PATH_MAX can be read and changed step by step.
func TestDeepPaths(t *testing.T) {
	harness.EachMode(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		const depth = 40 // of 200 bytes: 8,000
		name := strings.Repeat("d", 200)
		o := e.Overlay(t, "dir x")
		deepen := func(root string) (int, func()) {
			fd, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY, 0)
			harness.Check(t, err)
			for range depth {
				if err := unix.Mkdirat(fd, name, 0o755); err != nil && err != unix.EEXIST {
					t.Fatal(err)
				}
				next, err := unix.Openat(fd, name, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
				harness.Check(t, err)
				_ = unix.Close(fd)
				fd = next
			}
			return fd, func() { _ = unix.Close(fd) }
		}
		put := func(fd int, name, text string, flags int) {
			f, err := unix.Openat(fd, name, flags, 0o644)
			harness.Check(t, err)
			_, err = unix.Write(f, []byte(text))
			harness.Check(t, err)
			harness.Check(t, unix.Close(f))
		}
		get := func(fd int, name string) string {
			f, err := unix.Openat(fd, name, unix.O_RDONLY, 0)
			harness.Check(t, err)
			defer unix.Close(f)
			buf := make([]byte, 100)
			n, err := unix.Read(f, buf)
			harness.Check(t, err)
			return string(buf[:n])
		}
		low, done := deepen(o.Lowers[0])
		put(low, "file", "deep", unix.O_CREAT|unix.O_WRONLY)
		put(low, "gone", "deep", unix.O_CREAT|unix.O_WRONLY)
		done()
		o.Mount()
		fd, done := deepen(o.Point)
		harness.Equal(t, "the lower's file", get(fd, "file"), "deep")
		put(fd, "file", "er", unix.O_WRONLY|unix.O_APPEND)
		put(fd, "new", "new", unix.O_CREAT|unix.O_WRONLY)
		harness.Check(t, unix.Unlinkat(fd, "gone", 0))
		done()
		o.Remount()
		fd, done = deepen(o.Point)
		harness.Equal(t, "after a remount", get(fd, "file")+get(fd, "new"), "deepernew")
		_, err := unix.Openat(fd, "gone", unix.O_RDONLY, 0)
		harness.WantErr(t, "the removed file", err, syscall.ENOENT)
		done()
		// A path of just PATH_MAX-1 bytes by name.
		path := o.Point
		for 4094-len(path) > 220 {
			path += "/" + name
		}
		path += "/" + strings.Repeat("f", 4095-1-len(path))
		harness.Write(t, path, "at PATH_MAX")
		harness.WantText(t, path, "at PATH_MAX")
		_, err = os.Lstat(path + "x")
		harness.WantErr(t, "a path of PATH_MAX bytes", err, syscall.ENAMETOOLONG)
	})
}

// Symbolic links of layers do not lead the daemon out of its layers.
func TestSymlinksOfLayersStayInside(t *testing.T) {
	harness.EachMode(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		harness.Write(t, e.Dir+"/outside", "secret")
		harness.Mkdir(t, e.Dir+"/outdir")
		o := e.Overlay(t, "file d/x \"top\"\ndir u/sub", "symlink d ../outdir\nsymlink u "+e.Dir+"/outdir")
		harness.Write(t, e.Dir+"/outdir/leak", "secret")
		harness.Check(t, os.Symlink(e.Dir+"/outdir", filepath.Join(o.Upper, "v")))
		o.Mount()
		harness.WantNames(t, o.Path("d"), "x")
		harness.WantNames(t, o.Path("u"), "sub")
		harness.Write(t, o.Path("u/new"), "inside")
		target, err := os.Readlink(o.Path("v"))
		harness.Check(t, err)
		harness.Equal(t, "a symlink is shown as it is", target, e.Dir+"/outdir")
		harness.WantNames(t, e.Dir+"/outdir", "leak")
	})
}
