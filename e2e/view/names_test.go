package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
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
	eachMode(t, allModes, func(t *testing.T, e *env) {
		var table strings.Builder
		for _, name := range oddNames() {
			fmt.Fprintf(&table, "file %q %q\nfile %q %q\n", name, name, "dir "+name+"/"+name, name)
		}
		o := e.mounted(t, table.String())
		wantTree(t, "the lower's names", o.mnt, table.String())
		for _, name := range oddNames() {
			appendTo(t, o.path(name), "+")
			check(t, os.Rename(o.path(name), o.path("n"+name)))
			check(t, os.Remove(o.path("dir "+name+"/"+name)))
			write(t, o.path("dir "+name+"/2"+name), name)
		}
		table.Reset()
		for _, name := range oddNames() {
			fmt.Fprintf(&table, "file %q %q\nfile %q %q\n", "n"+name, name+"+", "dir "+name+"/2"+name, name)
		}
		wantTree(t, "changed names", o.mnt, table.String())
		o.remount()
		wantTree(t, "changed names after a remount", o.mnt, table.String())
	})
}

// Names of 255 bytes, which other programs refuse because of what they add to them.
func TestLongNames(t *testing.T) {
	eachMode(t, allModes, func(t *testing.T, e *env) {
		long := func(c string) string { return strings.Repeat(c, 255) }
		o := e.mounted(t, fmt.Sprintf("file %s \"x\"\nfile %s \"x\"\nfile %s/%s \"x\"\nsymlink %s x",
			long("a"), long("b"), long("d"), long("e"), long("s")))
		appendTo(t, o.path(long("a")), "+")
		check(t, os.Remove(o.path(long("b"))))
		check(t, os.Remove(o.path(long("s"))))
		check(t, os.RemoveAll(o.path(long("d"))))
		check(t, os.Mkdir(o.path(long("d")), 0o755))
		write(t, o.path(long("n")), "new")
		check(t, os.Rename(o.path(long("n")), o.path(long("b"))))
		check(t, os.Link(o.path(long("b")), o.path(long("l"))))
		want := fmt.Sprintf("file %s \"x+\"\nfile %s \"new\"\nfile %s \"new\"\ndir %s", long("a"), long("b"), long("l"), long("d"))
		wantTree(t, "merged", o.mnt, want)
		o.remount()
		wantTree(t, "merged after a remount", o.mnt, want)
		_, err := os.Lstat(o.path(long("x") + "x"))
		wantErr(t, "256 bytes: lstat", err, syscall.ENAMETOOLONG)
		wantErr(t, "256 bytes: mkdir", os.Mkdir(o.path(long("x")+"x"), 0o755), syscall.ENAMETOOLONG)
		wantErr(t, "256 bytes: create", os.WriteFile(o.path(long("x")+"x"), nil, 0o644), syscall.ENAMETOOLONG)
	})
}

// Names of up to 255 bytes can be removed, renamed and made again, in whichever form whiteouts are written.
func TestLongNamesInEachForm(t *testing.T) {
	needDaemon(t)
	for form, variable := range map[string]string{"": "", "markers": "y", "xattr_whiteouts": "y"} {
		t.Run(form, func(t *testing.T) {
			eachPolicy(t, allModes, func(t *testing.T, e *env) {
				t.Setenv("FUSE_OVERLAYFS_DISABLE_OVL_WHITEOUT", variable)
				var table strings.Builder
				names := map[int]func(string) string{}
				for length := 248; length <= 255; length++ {
					n := func(c string) string { return fmt.Sprintf("%s%d", c, length) + strings.Repeat("n", length-4) }
					names[length] = n
					fmt.Fprintf(&table, "file %s \"x\"\nfile %s \"x\"\nfile %s/f \"x\"\ndir %s\nfile %s \"x\"\nfile %s \"x\"\nsymlink %s x\nfile %s \"x\"\n",
						n("f"), n("u"), n("d"), n("e"), n("m"), n("o"), n("s"), n("k"))
				}
				o := e.overlay(t, table.String(), table.String())
				if form == "xattr_whiteouts" {
					o.opts = append(o.opts, form)
				}
				o.mount()
				var want strings.Builder
				for length, n := range names {
					check(t, os.Remove(o.path(n("f"))))
					appendTo(t, o.path(n("u")), "+")
					check(t, os.Remove(o.path(n("u"))))
					write(t, o.path(n("d"))+"/new", "x")
					check(t, os.RemoveAll(o.path(n("d"))))
					check(t, os.Remove(o.path(n("e"))))
					check(t, os.Remove(o.path(n("s"))))
					check(t, os.Rename(o.path(n("m")), o.path(n("t")))) // to a free name
					check(t, os.Rename(o.path(n("o")), o.path(n("k")))) // over another
					check(t, os.Mkdir(o.path(n("f")), 0o755))           // over whiteouts
					write(t, o.path(n("d")), "new")
					check(t, os.Rename(o.path(n("d")), o.path(n("u"))))
					check(t, os.Link(o.path(n("u")), o.path(n("s"))))
					fmt.Fprintf(&want, "dir %s\nfile %s \"x\"\nfile %s \"x\"\nfile %s \"new\"\nfile %s \"new\"\n",
						n("f"), n("t"), n("k"), n("u"), n("s"))
					_, marker := os.Lstat(filepath.Join(o.upper, ".wh."+n("e")))
					equal(t, fmt.Sprintf("%d bytes: a marker", length), marker == nil, form == "markers" && length+4 <= 255)
				}
				wantTree(t, "merged", o.mnt, want.String())
				o.remount()
				wantTree(t, "merged after a remount", o.mnt, want.String())
				o.unmount()
				if variable != "" {
					equal(t, "devices in the upper", sh(t, o.upper, "find . -type c | wc -l"), "0\n")
				}
				os.Unsetenv("FUSE_OVERLAYFS_DISABLE_OVL_WHITEOUT")
				o.lowers, o.upper, o.opts = append([]string{o.upper}, o.lowers...), "", nil
				o.mount()
				wantTree(t, "as a lower", o.mnt, want.String())
			})
		})
	}
}

// A tree deeper than PATH_MAX, reached step by step, read and changed.
func TestDeepPaths(t *testing.T) {
	eachMode(t, allModes, func(t *testing.T, e *env) {
		const depth = 40 // of 200 bytes: 8,000
		name := strings.Repeat("d", 200)
		o := e.overlay(t, "dir x")
		deepen := func(root string) (int, func()) {
			fd, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY, 0)
			check(t, err)
			for range depth {
				if err := unix.Mkdirat(fd, name, 0o755); err != nil && err != unix.EEXIST {
					t.Fatal(err)
				}
				next, err := unix.Openat(fd, name, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
				check(t, err)
				_ = unix.Close(fd)
				fd = next
			}
			return fd, func() { _ = unix.Close(fd) }
		}
		put := func(fd int, name, text string, flags int) {
			f, err := unix.Openat(fd, name, flags, 0o644)
			check(t, err)
			_, err = unix.Write(f, []byte(text))
			check(t, err)
			check(t, unix.Close(f))
		}
		get := func(fd int, name string) string {
			f, err := unix.Openat(fd, name, unix.O_RDONLY, 0)
			check(t, err)
			defer unix.Close(f)
			buf := make([]byte, 100)
			n, err := unix.Read(f, buf)
			check(t, err)
			return string(buf[:n])
		}
		low, done := deepen(o.lowers[0])
		put(low, "file", "deep", unix.O_CREAT|unix.O_WRONLY)
		put(low, "gone", "deep", unix.O_CREAT|unix.O_WRONLY)
		done()
		o.mount()
		fd, done := deepen(o.mnt)
		equal(t, "the lower's file", get(fd, "file"), "deep")
		put(fd, "file", "er", unix.O_WRONLY|unix.O_APPEND)
		put(fd, "new", "new", unix.O_CREAT|unix.O_WRONLY)
		check(t, unix.Unlinkat(fd, "gone", 0))
		done()
		o.remount()
		fd, done = deepen(o.mnt)
		equal(t, "after a remount", get(fd, "file")+get(fd, "new"), "deepernew")
		_, err := unix.Openat(fd, "gone", unix.O_RDONLY, 0)
		wantErr(t, "the removed file", err, syscall.ENOENT)
		done()
		// A path of just PATH_MAX-1 bytes by name.
		path := o.mnt
		for 4094-len(path) > 220 {
			path += "/" + name
		}
		path += "/" + strings.Repeat("f", 4095-1-len(path))
		write(t, path, "at PATH_MAX")
		wantText(t, path, "at PATH_MAX")
		_, err = os.Lstat(path + "x")
		wantErr(t, "a path of PATH_MAX bytes", err, syscall.ENAMETOOLONG)
	})
}

// Symlinks of layers lead nowhere outside of the mount's own tree, and layers may be full of them.
func TestSymlinksOfLayersStayInside(t *testing.T) {
	eachMode(t, allModes, func(t *testing.T, e *env) {
		write(t, e.dir+"/outside", "secret")
		mkdir(t, e.dir+"/outdir")
		o := e.overlay(t, "file d/x \"top\"\ndir u/sub", "symlink d ../outdir\nsymlink u "+e.dir+"/outdir")
		write(t, e.dir+"/outdir/leak", "secret")
		check(t, os.Symlink(e.dir+"/outdir", filepath.Join(o.upper, "v")))
		o.mount()
		wantNames(t, o.path("d"), "x")
		wantNames(t, o.path("u"), "sub")
		write(t, o.path("u/new"), "inside")
		target, err := os.Readlink(o.path("v"))
		check(t, err)
		equal(t, "a symlink is shown as it is", target, e.dir+"/outdir")
		wantNames(t, e.dir+"/outdir", "leak")
	})
}
