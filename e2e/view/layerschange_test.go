package e2e

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const layersChange = "timeout=0"

// changing mounts layers that the test changes below the mount.
func (e *env) changing(t *testing.T, lowers ...string) *overlay {
	t.Helper()
	o := e.overlay(t, lowers...)
	o.opts = append(o.opts[:len(o.opts):len(o.opts)], layersChange)
	o.mount()
	return o
}

// wantAsFresh compares what the mount shows with what a new mount of the same layers does.
func (o *overlay) wantAsFresh(what string) {
	o.t.Helper()
	fresh := &overlay{t: o.t, env: o.env, lowers: append([]string{o.upper}, o.lowers...), mnt: filepath.Join(o.env.dir, "fresh")}
	if err := os.Mkdir(fresh.mnt, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		o.t.Fatal(err)
	}
	fresh.mount()
	defer fresh.unmount()
	v := full
	v.xattr = hidePrivate
	compareTrees(o.t, what, fresh.mnt, o.mnt, v)
}

// layer is a path in a layer: 0 is the upper.
func (o *overlay) layer(i int, rel string) string {
	if i == 0 {
		return o.upper + "/" + rel
	}
	return o.lowers[i-1] + "/" + rel
}

// replace puts a new file in the place of another.
func replace(t *testing.T, path, text string) {
	t.Helper()
	write(t, path+".tmp", text)
	check(t, os.Rename(path+".tmp", path))
}

// keepTimes does something to a file and sets its old mtime again.
func keepTimes(t *testing.T, path string, f func()) {
	t.Helper()
	st := lstat(t, path)
	f()
	check(t, unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{st.Atim, st.Mtim}, unix.AT_SYMLINK_NOFOLLOW))
}

// What others do to the layers is seen by the next look-up, open and listing, of what has been looked at before.
func TestChangesOfLayersAreSeen(t *testing.T) {
	for name, c := range map[string]struct {
		change func(t *testing.T, o *overlay)
		view   func(t *testing.T, o *overlay) // besides that it is as a new mount shows
	}{
		"new names": {func(t *testing.T, o *overlay) {
			write(t, o.layer(1, "new"), "n")
			write(t, o.layer(2, "d/new"), "d")
			mkdir(t, o.layer(1, "newdir"))
			write(t, o.layer(1, "newdir/in"), "")
			check(t, os.Symlink("new", o.layer(2, "newlink")))
		}, func(t *testing.T, o *overlay) {
			wantText(t, o.path("new"), "n")
			wantText(t, o.path("d/new"), "d")
			wantNames(t, o.path("newdir"), "in")
		}},
		"names removed": {func(t *testing.T, o *overlay) {
			check(t, os.Remove(o.layer(1, "file")))
			check(t, os.Remove(o.layer(2, "file")))
			check(t, os.RemoveAll(o.layer(1, "d")))
			check(t, os.RemoveAll(o.layer(2, "only")))
		}, func(t *testing.T, o *overlay) {
			wantAbsent(t, o.path("file"))
			wantAbsent(t, o.path("d/first"))
			wantText(t, o.path("d/second"), "2")
		}},
		"files replaced": {func(t *testing.T, o *overlay) {
			replace(t, o.layer(1, "file"), "another file")
			replace(t, o.layer(2, "d/second"), "another")
		}, func(t *testing.T, o *overlay) { wantText(t, o.path("file"), "another file") }},
		"files removed and made": {func(t *testing.T, o *overlay) { // mostly the same inode
			check(t, os.Remove(o.layer(1, "file")))
			write(t, o.layer(1, "file"), "FILE")
			check(t, os.Remove(o.layer(1, "link")))
			check(t, os.Symlink("elsewhere", o.layer(1, "link")))
		}, func(t *testing.T, o *overlay) { wantText(t, o.path("file"), "FILE") }},
		"a file grows": {func(t *testing.T, o *overlay) { appendTo(t, o.layer(1, "file"), " and more") },
			func(t *testing.T, o *overlay) { wantText(t, o.path("file"), "file and more") }},
		"a file shrinks": {func(t *testing.T, o *overlay) { check(t, os.Truncate(o.layer(1, "file"), 2)) },
			func(t *testing.T, o *overlay) { wantText(t, o.path("file"), "fi") }},
		"a file is written": {func(t *testing.T, o *overlay) { write(t, o.layer(1, "file"), "FILE") },
			func(t *testing.T, o *overlay) { wantText(t, o.path("file"), "FILE") }},
		"a file is written, and its mtime set back": {func(t *testing.T, o *overlay) {
			keepTimes(t, o.layer(1, "file"), func() { write(t, o.layer(1, "file"), "FILE") })
		}, func(t *testing.T, o *overlay) { wantText(t, o.path("file"), "FILE") }},
		"modes and attributes": {func(t *testing.T, o *overlay) {
			check(t, os.Chmod(o.layer(1, "file"), 0o600))
			check(t, os.Chmod(o.layer(1, "d"), 0o700))
			check(t, unix.Setxattr(o.layer(1, "file"), "user.new", []byte("value"), 0))
		}, func(t *testing.T, o *overlay) {
			equal(t, "mode", lstat(t, o.path("file")).Mode&0o7777, 0o600)
		}},
		"whiteouts": {func(t *testing.T, o *overlay) {
			build(t, o.env, o.layer(0, ""), "white file")
			build(t, o.env, o.layer(1, ""), "white only")
			build(t, o.env, o.layer(1, "d"), "file .wh.second \"\"")
		}, func(t *testing.T, o *overlay) {
			wantAbsent(t, o.path("file"))
			wantAbsent(t, o.path("only/in"))
			wantNames(t, o.path("d"), "first", "sub")
		}},
		"whiteouts removed": {func(t *testing.T, o *overlay) { check(t, os.Remove(o.layer(1, "hidden"))) },
			func(t *testing.T, o *overlay) { wantText(t, o.path("hidden"), "seen") }},
		"files of the upper": {func(t *testing.T, o *overlay) {
			write(t, o.layer(0, "file"), "of the upper")
			mkdir(t, o.layer(0, "d"))
			write(t, o.layer(0, "d/first"), "above")
			write(t, o.layer(0, "d/third"), "3")
		}, func(t *testing.T, o *overlay) {
			wantText(t, o.path("file"), "of the upper")
			wantText(t, o.path("d/first"), "above")
			wantNames(t, o.path("d"), "first", "second", "sub", "third")
		}},
		"directories appear below": {func(t *testing.T, o *overlay) {
			mkdir(t, o.layer(1, "only"))
			write(t, o.layer(1, "only/above"), "a")
			mkdir(t, o.layer(2, "single"))
			write(t, o.layer(2, "single/below"), "b")
		}, func(t *testing.T, o *overlay) {
			wantNames(t, o.path("only"), "above", "in")
			wantNames(t, o.path("single"), "below", "first")
		}},
		"directories are replaced": {func(t *testing.T, o *overlay) {
			check(t, os.Rename(o.layer(2, "d"), o.layer(2, "was")))
			mkdir(t, o.layer(2, "d"))
			write(t, o.layer(2, "d/another"), "")
			check(t, os.Rename(o.layer(1, "single"), o.layer(1, "single2")))
			write(t, o.layer(1, "single"), "a file now")
		}, func(t *testing.T, o *overlay) {
			wantNames(t, o.path("d"), "another", "first")
			wantText(t, o.path("was/sub/deep"), "deep")
			wantText(t, o.path("single"), "a file now")
		}},
		"a directory becomes opaque": {func(t *testing.T, o *overlay) {
			write(t, o.layer(1, "d/.wh..wh..opq"), "")
		}, func(t *testing.T, o *overlay) { wantNames(t, o.path("d"), "first") }},
		"a directory replaces a file": {func(t *testing.T, o *overlay) {
			check(t, os.Remove(o.layer(1, "file")))
			mkdir(t, o.layer(1, "file"))
			write(t, o.layer(1, "file/in"), "in")
		}, func(t *testing.T, o *overlay) { wantText(t, o.path("file/in"), "in") }},
	} {
		t.Run(name, func(t *testing.T) {
			eachPolicy(t, allModes, func(t *testing.T, e *env) {
				o := e.changing(t, "file file file\nfile d/first 1\nlink link file\nwhite hidden\nfile single/first 1",
					"file d/second 2\nfile d/sub/deep deep\nfile only/in in\nfile hidden seen\nfile file lowest")
				o.wantAsFresh("before")
				_, err := os.Lstat(o.path("new")) // what is not there is not remembered either
				wantErr(t, "lstat", err, syscall.ENOENT)
				c.change(t, o)
				c.view(t, o)
				o.wantAsFresh("after")
				// And the mount can be changed as ever.
				write(t, o.path("d/made"), "made")
				check(t, os.RemoveAll(o.path("only")))
				o.wantAsFresh("changed through the mount")
			})
		})
	}
}

// Random changes of all layers and through the mount, after each of which the mount shows what a new one does.
func TestLayersChangeAtRandom(t *testing.T) {
	eachPolicy(t, allModes, func(t *testing.T, e *env) {
		seed := rand.Uint64()
		t.Log("seed", seed)
		r := rand.New(rand.NewPCG(seed, 15))
		o := e.changing(t, "dir a/b\ndir c", "dir a/b\ndir c/d", "dir a")
		names := []string{"a", "a/b", "c", "c/d", "a/b/x", "a/x", "c/x", "c/d/x", "x", "y", "a/y", "c/y"}
		for step := range 60 {
			roots := []string{o.mnt, o.upper, o.lowers[0], o.lowers[1], o.lowers[2]}
			root, name := roots[r.IntN(len(roots))], names[r.IntN(len(names))]
			path := root + "/" + name
			what := fmt.Sprintf("step %d: %s of %s, ", step, name, filepath.Base(root))
			switch r.IntN(7) { // errors are as good as a change
			case 0, 1:
				what += "write"
				_ = os.WriteFile(path, []byte(fmt.Sprint("text ", step)), 0o644)
			case 2:
				what += "mkdir"
				_ = os.Mkdir(path, 0o755)
			case 3:
				what += "remove"
				_ = os.RemoveAll(path)
			case 4:
				to := root + "/" + names[r.IntN(len(names))]
				what += "rename to " + to
				if !strings.HasPrefix(to, path) {
					_ = os.Rename(path, to)
				}
			case 5:
				what += "white"
				if root != o.mnt && os.RemoveAll(path) == nil {
					_ = unix.Mknod(path, unix.S_IFCHR, 0)
				}
			case 6:
				what += "append"
				if f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0); err == nil {
					fmt.Fprint(f, step)
					check(t, f.Close())
				}
			}
			o.wantAsFresh(what)
			if t.Failed() {
				return
			}
		}
	})
}

// Many processes use the mount while layers change. None hangs, and afterwards the tree is right.
func TestLayersChangeUnderLoad(t *testing.T) {
	eachPolicy(t, allModes, func(t *testing.T, e *env) {
		o := e.changing(t, "dir a/b\ndir c", "dir a/b\ndir c/d", "dir a")
		names := []string{"a", "a/b", "c", "c/d", "a/b/x", "a/x", "c/x", "c/d/x", "x", "y"}
		end := time.Now().Add(time.Second)
		var wg sync.WaitGroup
		for i, root := range []string{o.mnt, o.mnt, o.mnt, o.mnt, o.upper, o.lowers[0], o.lowers[1]} {
			r := rand.New(rand.NewPCG(uint64(i), 16))
			wg.Go(func() {
				for time.Now().Before(end) {
					path, other := root+"/"+names[r.IntN(len(names))], root+"/"+names[r.IntN(len(names))]
					switch r.IntN(9) {
					case 0, 1:
						_ = os.WriteFile(path, []byte(path), 0o644)
					case 2:
						_ = os.Mkdir(path, 0o755)
					case 3:
						_ = os.RemoveAll(path)
					case 4:
						if !strings.HasPrefix(other, path) {
							_ = os.Rename(path, other)
						}
					case 5:
						_ = os.Chmod(path, 0o700)
					case 6:
						_, _ = os.ReadFile(path)
					case 7:
						_, _ = os.ReadDir(path)
					case 8:
						if f, err := os.OpenFile(path, os.O_RDWR, 0); err == nil {
							_, _ = f.WriteString("w")
							_, _ = f.ReadAt(make([]byte, 10), 0)
							_ = f.Close()
						}
					}
				}
			})
		}
		wg.Wait()
		o.wantAsFresh("after all")
	})
}

// An open file remains the object that was opened, or its requests fail with ESTALE. A write to it
// does not reach the object that has taken its name.
func TestWhatIsOpenWhileLayersChange(t *testing.T) {
	eachPolicy(t, allModes, func(t *testing.T, e *env) {
		o := e.changing(t, "file f \"first text\"\nfile g \"first text\"\nfile h \"first text\"\nfile d/in in")
		read := func(f *os.File) string {
			buf := make([]byte, 100)
			n, _ := f.ReadAt(buf, 0)
			return string(buf[:n])
		}
		f, g, h := open(t, o.path("f"), os.O_RDWR), open(t, o.path("g"), os.O_RDWR), open(t, o.path("h"), os.O_RDWR)
		d := open(t, o.path("d"), os.O_RDONLY)
		defer f.Close()
		defer g.Close()
		defer h.Close()
		defer d.Close()
		upper := e.has(passthrough) // where OPEN copies up
		layer := 1
		if upper {
			layer = 0
		}
		replace(t, o.layer(layer, "f"), "second text")
		check(t, os.Remove(o.layer(layer, "g")))
		write(t, o.layer(0, "h"), "third text")
		check(t, os.RemoveAll(o.layer(1, "d")))
		wantText(t, o.path("f"), "second text")
		for name, file := range map[string]*os.File{"f": f, "g": g} {
			if got := read(file); got != "first text" {
				t.Errorf("%s, open, reads as %q", name, got)
			}
			equal(t, "size of "+name, fstat(t, file).Size, int64(len("first text")))
		}
		if !upper {
			for _, file := range []*os.File{f, h} {
				if _, err := file.WriteAt([]byte("WRITTEN"), 0); err != nil {
					wantErr(t, "write", err, syscall.ESTALE)
				}
			}
			wantText(t, o.path("h"), "third text")
			wantText(t, o.upper+"/h", "third text")
			wantText(t, o.lowers[0]+"/h", "first text")
		}
		wantText(t, o.path("f"), "second text")
		wantText(t, o.layer(layer, "f"), "second text")
		if _, err := d.ReadDir(-1); err != nil {
			wantErr(t, "listing", err, syscall.ESTALE, syscall.ENOENT)
		}
		wantErr(t, "a file in a removed directory", os.WriteFile(o.path("d/new"), nil, 0o644), syscall.ENOENT)
		o.wantAsFresh("after all")
	})
}

// A process that works in a directory sees what comes to it from below, by paths that begin there.
func TestWorkingDirectoryWhileLayersChange(t *testing.T) {
	eachPolicy(t, allModes, func(t *testing.T, e *env) {
		o := e.changing(t, "file d/sub/one 1", "dir d")
		d := open(t, o.path("d/sub"), os.O_RDONLY)
		defer d.Close()
		mkdir(t, o.layer(2, "d/sub"), o.layer(0, "d"), o.layer(0, "d/sub"))
		write(t, o.layer(2, "d/sub/two"), "2")
		write(t, o.layer(0, "d/sub/three"), "3")
		names, err := d.Readdirnames(-1)
		check(t, err)
		equal(t, "names", len(names), 3)
		for _, name := range []string{"one", "two", "three"} {
			f, err := unix.Openat(int(d.Fd()), name, unix.O_RDONLY, 0)
			if err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			check(t, unix.Close(f))
		}
	})
}

// A mount that reads the upper of another, by ro, shows what is done through that one.
func TestReaderSeesWhatTheWriterDoes(t *testing.T) {
	eachPolicy(t, allModes, func(t *testing.T, e *env) {
		o := e.mounted(t, "file d/sub/f \"lower\"\nfile d/g \"lower\"\nfile gone \"x\"", "file d/below \"b\"")
		reader := secondOf(t, o, "ro")
		reader.mount()
		same := func(what string) {
			t.Helper()
			compareTrees(t, what, o.mnt, reader.mnt, view{mode: true, owner: true, xattrs: true, mtime: true})
		}
		same("before")
		for _, step := range []struct {
			what string
			do   func()
		}{
			{"append", func() { appendTo(t, o.path("d/sub/f"), " and upper") }},
			{"write", func() { write(t, o.path("d/sub/f"), "UPPER AND LOWER") }},
			{"remove", func() { check(t, os.Remove(o.path("gone"))) }},
			{"make again", func() { write(t, o.path("gone"), "again") }},
			{"remove all", func() { check(t, os.RemoveAll(o.path("d/sub"))) }},
			{"make a directory", func() { mkdir(t, o.path("d/sub")); write(t, o.path("d/sub/new"), "n") }},
			{"rename", func() { check(t, os.Rename(o.path("d/g"), o.path("d/sub/g"))) }},
			{"chmod", func() { check(t, os.Chmod(o.path("d/below"), 0o600)) }},
			{"replace", func() { replace(t, o.path("d/below"), "another") }},
		} {
			step.do()
			syncAll(t, o.mnt)
			same(step.what)
		}
		reader.unmount()
	})
}

// syncAll writes back what the kernel has collected.
func syncAll(t *testing.T, dir string) {
	t.Helper()
	d := open(t, dir, os.O_RDONLY)
	defer d.Close()
	check(t, unix.Syncfs(int(d.Fd())))
}
