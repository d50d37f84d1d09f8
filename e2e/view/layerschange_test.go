package view

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

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

const layersChange = "timeout=0"

// mountChanging mounts layers that the test changes below the mount.
func mountChanging(e *harness.Env, t *testing.T, lowers ...string) *harness.Overlay {
	t.Helper()
	o := e.Overlay(t, lowers...)
	o.Opts = append(o.Opts[:len(o.Opts):len(o.Opts)], layersChange)
	o.Mount()
	return o
}

// wantAsFresh compares what the mount shows with what a new mount of the same layers does.
func wantAsFresh(o *harness.Overlay, what string) {
	o.T.Helper()
	fresh := &harness.Overlay{T: o.T, Env: o.Env, Lowers: append([]string{o.Upper}, o.Lowers...),
		Point: filepath.Join(o.Env.Dir, "fresh")}
	if err := os.Mkdir(fresh.Point, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		o.T.Fatal(err)
	}
	fresh.Mount()
	defer fresh.Unmount()
	v := harness.FullView
	v.Xattr = harness.HidePrivate
	harness.CompareTrees(o.T, what, fresh.Point, o.Point, v)
}

// layerPath is a path in a layer: 0 is the upper.
func layerPath(o *harness.Overlay, i int, rel string) string {
	if i == 0 {
		return o.Upper + "/" + rel
	}
	return o.Lowers[i-1] + "/" + rel
}

// replace puts a new file in the place of another.
func replace(t *testing.T, path, text string) {
	t.Helper()
	harness.Write(t, path+".tmp", text)
	harness.Check(t, os.Rename(path+".tmp", path))
}

// keepTimes changes a file by fn and sets its old mtime again.
func keepTimes(t *testing.T, path string, f func()) {
	t.Helper()
	st := harness.Lstat(t, path)
	f()
	harness.Check(t, unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{st.Atim, st.Mtim}, unix.AT_SYMLINK_NOFOLLOW))
}

// The next lookup, open and listing shows a change of a layer, also for an object that the mount
// has shown before.
func TestChangesOfLayersAreSeen(t *testing.T) {
	for name, c := range map[string]struct {
		change func(t *testing.T, o *harness.Overlay)
		view   func(t *testing.T, o *harness.Overlay) // besides that it is as a new mount shows
	}{
		"new names": {func(t *testing.T, o *harness.Overlay) {
			harness.Write(t, layerPath(o, 1, "new"), "n")
			harness.Write(t, layerPath(o, 2, "d/new"), "d")
			harness.Mkdir(t, layerPath(o, 1, "newdir"))
			harness.Write(t, layerPath(o, 1, "newdir/in"), "")
			harness.Check(t, os.Symlink("new", layerPath(o, 2, "newlink")))
		}, func(t *testing.T, o *harness.Overlay) {
			harness.WantText(t, o.Path("new"), "n")
			harness.WantText(t, o.Path("d/new"), "d")
			harness.WantNames(t, o.Path("newdir"), "in")
		}},
		"names removed": {func(t *testing.T, o *harness.Overlay) {
			harness.Check(t, os.Remove(layerPath(o, 1, "file")))
			harness.Check(t, os.Remove(layerPath(o, 2, "file")))
			harness.Check(t, os.RemoveAll(layerPath(o, 1, "d")))
			harness.Check(t, os.RemoveAll(layerPath(o, 2, "only")))
		}, func(t *testing.T, o *harness.Overlay) {
			harness.WantAbsent(t, o.Path("file"))
			harness.WantAbsent(t, o.Path("d/first"))
			harness.WantText(t, o.Path("d/second"), "2")
		}},
		"files replaced": {func(t *testing.T, o *harness.Overlay) {
			replace(t, layerPath(o, 1, "file"), "another file")
			replace(t, layerPath(o, 2, "d/second"), "another")
		}, func(t *testing.T, o *harness.Overlay) { harness.WantText(t, o.Path("file"), "another file") }},
		"files removed and made": {func(t *testing.T, o *harness.Overlay) { // mostly the same inode
			harness.Check(t, os.Remove(layerPath(o, 1, "file")))
			harness.Write(t, layerPath(o, 1, "file"), "FILE")
			harness.Check(t, os.Remove(layerPath(o, 1, "link")))
			harness.Check(t, os.Symlink("elsewhere", layerPath(o, 1, "link")))
		}, func(t *testing.T, o *harness.Overlay) { harness.WantText(t, o.Path("file"), "FILE") }},
		"a file grows": {func(t *testing.T, o *harness.Overlay) { harness.AppendTo(t, layerPath(o, 1, "file"), " and more") },
			func(t *testing.T, o *harness.Overlay) { harness.WantText(t, o.Path("file"), "file and more") }},
		"a file shrinks": {func(t *testing.T, o *harness.Overlay) {
			harness.Check(t, os.Truncate(layerPath(o, 1, "file"),
				2))
		},
			func(t *testing.T, o *harness.Overlay) { harness.WantText(t, o.Path("file"), "fi") }},
		"a file is written": {func(t *testing.T, o *harness.Overlay) { harness.Write(t, layerPath(o, 1, "file"), "FILE") },
			func(t *testing.T, o *harness.Overlay) { harness.WantText(t, o.Path("file"), "FILE") }},
		"a file is written, and its mtime set back": {func(t *testing.T, o *harness.Overlay) {
			keepTimes(t, layerPath(o, 1, "file"), func() { harness.Write(t, layerPath(o, 1, "file"), "FILE") })
		}, func(t *testing.T, o *harness.Overlay) { harness.WantText(t, o.Path("file"), "FILE") }},
		"modes and attributes": {func(t *testing.T, o *harness.Overlay) {
			harness.Check(t, os.Chmod(layerPath(o, 1, "file"), 0o600))
			harness.Check(t, os.Chmod(layerPath(o, 1, "d"), 0o700))
			harness.Check(t, unix.Setxattr(layerPath(o, 1, "file"), "user.new", []byte("value"), 0))
		}, func(t *testing.T, o *harness.Overlay) {
			harness.Equal(t, "mode", harness.Lstat(t, o.Path("file")).Mode&0o7777, 0o600)
		}},
		"whiteouts": {func(t *testing.T, o *harness.Overlay) {
			harness.Build(t, o.Env, layerPath(o, 0, ""), "white file")
			harness.Build(t, o.Env, layerPath(o, 1, ""), "white only")
			harness.Build(t, o.Env, layerPath(o, 1, "d"), "file .wh.second \"\"")
		}, func(t *testing.T, o *harness.Overlay) {
			harness.WantAbsent(t, o.Path("file"))
			harness.WantAbsent(t, o.Path("only/in"))
			harness.WantNames(t, o.Path("d"), "first", "sub")
		}},
		"whiteouts removed": {func(t *testing.T, o *harness.Overlay) {
			harness.Check(t,
				os.Remove(layerPath(o, 1, "hidden")))
		},
			func(t *testing.T, o *harness.Overlay) { harness.WantText(t, o.Path("hidden"), "seen") }},
		"files of the upper": {func(t *testing.T, o *harness.Overlay) {
			harness.Write(t, layerPath(o, 0, "file"), "of the upper")
			harness.Mkdir(t, layerPath(o, 0, "d"))
			harness.Write(t, layerPath(o, 0, "d/first"), "above")
			harness.Write(t, layerPath(o, 0, "d/third"), "3")
		}, func(t *testing.T, o *harness.Overlay) {
			harness.WantText(t, o.Path("file"), "of the upper")
			harness.WantText(t, o.Path("d/first"), "above")
			harness.WantNames(t, o.Path("d"), "first", "second", "sub", "third")
		}},
		"directories appear below": {func(t *testing.T, o *harness.Overlay) {
			harness.Mkdir(t, layerPath(o, 1, "only"))
			harness.Write(t, layerPath(o, 1, "only/above"), "a")
			harness.Mkdir(t, layerPath(o, 2, "single"))
			harness.Write(t, layerPath(o, 2, "single/below"), "b")
		}, func(t *testing.T, o *harness.Overlay) {
			harness.WantNames(t, o.Path("only"), "above", "in")
			harness.WantNames(t, o.Path("single"), "below", "first")
		}},
		"directories are replaced": {func(t *testing.T, o *harness.Overlay) {
			harness.Check(t, os.Rename(layerPath(o, 2, "d"), layerPath(o, 2, "was")))
			harness.Mkdir(t, layerPath(o, 2, "d"))
			harness.Write(t, layerPath(o, 2, "d/another"), "")
			harness.Check(t, os.Rename(layerPath(o, 1, "single"), layerPath(o, 1, "single2")))
			harness.Write(t, layerPath(o, 1, "single"), "a file now")
		}, func(t *testing.T, o *harness.Overlay) {
			harness.WantNames(t, o.Path("d"), "another", "first")
			harness.WantText(t, o.Path("was/sub/deep"), "deep")
			harness.WantText(t, o.Path("single"), "a file now")
		}},
		"a directory becomes opaque": {func(t *testing.T, o *harness.Overlay) {
			harness.Write(t, layerPath(o, 1, "d/.wh..wh..opq"), "")
		}, func(t *testing.T, o *harness.Overlay) { harness.WantNames(t, o.Path("d"), "first") }},
		"a directory replaces a file": {func(t *testing.T, o *harness.Overlay) {
			harness.Check(t, os.Remove(layerPath(o, 1, "file")))
			harness.Mkdir(t, layerPath(o, 1, "file"))
			harness.Write(t, layerPath(o, 1, "file/in"), "in")
		}, func(t *testing.T, o *harness.Overlay) { harness.WantText(t, o.Path("file/in"), "in") }},
	} {
		t.Run(name, func(t *testing.T) {
			harness.EachPolicy(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
				o := mountChanging(e, t, "file file file\nfile d/first 1\nlink link file\nwhite hidden\nfile single/first 1",
					"file d/second 2\nfile d/sub/deep deep\nfile only/in in\nfile hidden seen\nfile file lowest")
				wantAsFresh(o, "before")
				_, err := os.Lstat(o.Path("new")) // what is not there is not remembered either
				harness.WantErr(t, "lstat", err, syscall.ENOENT)
				c.change(t, o)
				c.view(t, o)
				wantAsFresh(o, "after")
				// The mount itself can still be changed.
				harness.Write(t, o.Path("d/made"), "made")
				harness.Check(t, os.RemoveAll(o.Path("only")))
				wantAsFresh(o, "changed through the mount")
			})
		})
	}
}

// After each of many random changes, of layers and through the mount, the mount shows the same as a
// new one.
func TestLayersChangeAtRandom(t *testing.T) {
	harness.EachPolicy(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		seed := rand.Uint64()
		t.Log("seed", seed)
		r := rand.New(rand.NewPCG(seed, 15))
		o := mountChanging(e, t, "dir a/b\ndir c", "dir a/b\ndir c/d", "dir a")
		names := []string{"a", "a/b", "c", "c/d", "a/b/x", "a/x", "c/x", "c/d/x", "x", "y", "a/y", "c/y"}
		for step := range 60 {
			roots := []string{o.Point, o.Upper, o.Lowers[0], o.Lowers[1], o.Lowers[2]}
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
				if root != o.Point && os.RemoveAll(path) == nil {
					_ = unix.Mknod(path, unix.S_IFCHR, 0)
				}
			case 6:
				what += "append"
				if f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0); err == nil {
					fmt.Fprint(f, step)
					harness.Check(t, f.Close())
				}
			}
			wantAsFresh(o, what)
			if t.Failed() {
				return
			}
		}
	})
}

// Many processes use the mount while layers change. None hangs, and the mount shows the right tree
// at the end.
func TestLayersChangeUnderLoad(t *testing.T) {
	harness.EachPolicy(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		o := mountChanging(e, t, "dir a/b\ndir c", "dir a/b\ndir c/d", "dir a")
		names := []string{"a", "a/b", "c", "c/d", "a/b/x", "a/x", "c/x", "c/d/x", "x", "y"}
		end := time.Now().Add(time.Second)
		var wg sync.WaitGroup
		for i, root := range []string{o.Point, o.Point, o.Point, o.Point, o.Upper, o.Lowers[0], o.Lowers[1]} {
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
		wantAsFresh(o, "after all")
	})
}

// syncAll makes the kernel write back all dirty pages.
func syncAll(t *testing.T, dir string) {
	t.Helper()
	d := harness.Open(t, dir, os.O_RDONLY)
	defer d.Close()
	harness.Check(t, unix.Syncfs(int(d.Fd())))
}
