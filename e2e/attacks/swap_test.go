package attacks

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// races is the number of operations in each mount of TestSwappedComponents. factor multiplies the
// number of mounts: the harness ends a mount that is too old.
const races = 300

// What marks the objects outside of all layers. Nothing with these modes, this name or this text
// may show in a mount.
const (
	outsideName     = "outside-of-all-layers"
	outsideText     = "text that no layer holds"
	outsideFileMode = 0o611
	outsideDirMode  = 0o715
)

// outside is a folder outside of all layers, with the names of swappedTree.
type outside struct {
	dir    string
	watch  int // an inotify instance that watches each object
	before map[string]string
}

// swappedTree is the tree of the layer and of the folder outside: for each file, the component of
// its path that is swapped.
var swappedTree = map[string][]string{
	"f":              {"f"},
	"d/f":            {"d", "d/f"},
	"d/sub/f":        {"d", "d/sub", "d/sub/f"},
	"d/sub/deep/f":   {"d/sub", "d/sub/deep", "d/sub/deep/f"},
	"e/one/two/file": {"e", "e/one", "e/one/two"},
}

func makeOutside(t *testing.T, e *harness.Env) *outside {
	t.Helper()
	o := &outside{dir: filepath.Join(e.Dir, outsideName)}
	harness.Mkdir(t, o.dir)
	for file := range swappedTree {
		path := filepath.Join(o.dir, file)
		harness.Check(t, os.MkdirAll(filepath.Dir(path), 0o755))
		harness.Write(t, path, outsideText)
		harness.Write(t, filepath.Join(filepath.Dir(path), outsideName), outsideText)
	}
	o.before = o.snapshot(t)
	var err error
	o.watch, err = unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	harness.Check(t, err)
	t.Cleanup(func() { _ = unix.Close(o.watch) })
	harness.Check(t, filepath.WalkDir(o.dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		mode := os.FileMode(outsideFileMode)
		if entry.IsDir() {
			mode = outsideDirMode
		}
		return os.Chmod(path, mode)
	}))
	return o
}

// watchAll begins to watch. All that is done to an object from now on, except by a descriptor that
// has only a path, is an event.
func (o *outside) watchAll(t *testing.T) {
	t.Helper()
	o.before = o.snapshot(t)
	harness.Check(t, filepath.WalkDir(o.dir, func(path string, _ fs.DirEntry, err error) error {
		if err == nil {
			_, err = unix.InotifyAddWatch(o.watch, path, unix.IN_ALL_EVENTS)
		}
		return err
	}))
	o.events(t) // WalkDir has read the folders that it had begun to watch
}

// events returns how many events there were since the last call.
func (o *outside) events(t *testing.T) (n int) {
	t.Helper()
	buf := make([]byte, 1<<16)
	for {
		size, err := unix.Read(o.watch, buf)
		if err == unix.EAGAIN {
			return n
		}
		harness.Check(t, err)
		n += size / unix.SizeofInotifyEvent // the least that can be: a name makes an event longer
	}
}

func (o *outside) snapshot(t *testing.T) map[string]string {
	t.Helper()
	lines, err := harness.Snapshot(o.dir, harness.ExactView)
	harness.Check(t, err)
	return lines
}

// wantUntouched fails the test if an object outside was opened or changed.
func (o *outside) wantUntouched(t *testing.T) {
	t.Helper()
	if n := o.events(t); n > 0 {
		t.Errorf("about %d times something outside of the layers was opened or changed", n)
	}
	if d := harness.DiffLines(o.before, o.snapshot(t)); d != "" {
		t.Errorf("outside of the layers:\n%s", d)
	}
}

// A swapper puts other objects in the place of components of a layer, and puts them back.
type swapper struct {
	layer   string
	targets []string // of symbolic links
	swaps   atomic.Int64
	failed  atomic.Pointer[error]
}

// start begins to exchange components until the function that it returns is called. They have to be
// in their places.
func (s *swapper) start(t *testing.T, components []string) (end func()) {
	t.Helper()
	stop := make(chan struct{})
	var wg sync.WaitGroup
	folders := map[string]*os.File{} // the swapper must not follow the links
	for _, component := range components {
		folders[component] = harness.Open(t, filepath.Join(s.layer, filepath.Dir(component)), unix.O_PATH|unix.O_DIRECTORY)
	}
	for component, folder := range folders {
		wg.Go(func() {
			if err := s.run(int(folder.Fd()), component, stop); err != nil {
				s.failed.Store(&err)
			}
			_ = folder.Close()
		})
	}
	return func() {
		t.Helper()
		close(stop)
		wg.Wait()
		if err := s.failed.Load(); err != nil {
			t.Fatal(*err)
		}
	}
}

// run exchanges the component in a folder until stop is closed. In its place is a new object each
// time.
func (s *swapper) run(folder int, component string, stop <-chan struct{}) error {
	r := rand.New(rand.NewPCG(rand.Uint64(), 2))
	name := filepath.Base(component)
	other := filepath.Join(s.layer, "other-"+strings.ReplaceAll(component, "/", "-"))
	for {
		// The mount may make something in a directory of an upper that is there at this time.
		if err := s.place(r, other, component); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		for _, most := range []int{200, 1000} { // microseconds of the new object, and of the old one
			// The client may have removed one of them.
			if unix.Renameat2(folder, name, unix.AT_FDCWD, other, unix.RENAME_EXCHANGE) == nil {
				s.swaps.Add(1)
			}
			select {
			case <-stop:
				return nil
			case <-time.After(time.Duration(r.IntN(most)) * time.Microsecond):
			}
		}
	}
}

// place makes an object of a random kind at a path.
func (s *swapper) place(r *rand.Rand, path, component string) error {
	_ = os.RemoveAll(path)
	switch r.IntN(8) {
	case 0:
		return unix.Mkfifo(path, 0o666)
	case 1:
		return os.Mkdir(path, 0o755)
	case 2:
		return os.WriteFile(path, []byte("a file"), 0o644)
	}
	target := s.targets[r.IntN(len(s.targets))]
	return os.Symlink(strings.ReplaceAll(target, "COMPONENT", component), path)
}

// linkTargets are ways out of a layer. COMPONENT is the component that the link replaces.
func linkTargets(o *outside) []string {
	return []string{
		o.dir + "/COMPONENT",
		strings.Repeat("../", 30) + o.dir + "/COMPONENT",
		"../../" + outsideName + "/COMPONENT", "../../../" + outsideName + "/COMPONENT",
		"../" + outsideName + "/COMPONENT",
		"/proc/self/root" + o.dir + "/COMPONENT",
		"/proc/self/cwd/" + o.dir + "/COMPONENT",
		"/proc/self/fd/3", "/proc/self/fd/5/../" + outsideName + "/COMPONENT",
		"/proc/thread-self/root" + o.dir,
		"..", "/", ".",
	}
}

// A client uses a mount, and never follows a symbolic link itself.
type client struct {
	t    *testing.T
	root *os.File
	ok   int
	errs map[string]int
}

const noLinks = unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS

func (c *client) open(path string, flags uint64) (*os.File, error) {
	if flags&unix.O_PATH == 0 {
		flags |= unix.O_NONBLOCK // for fifos
	}
	how := unix.OpenHow{Flags: flags | unix.O_CLOEXEC, Resolve: noLinks}
	fd, err := unix.Openat2(int(c.root.Fd()), path, &how)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), path), nil
}

// with opens an object, calls f and closes it.
func (c *client) with(path string, flags uint64, f func(*os.File) error) error {
	file, err := c.open(path, flags)
	if err != nil {
		return err
	}
	return errors.Join(f(file), file.Close())
}

// inFolder calls f with the folder of an object and its name.
func (c *client) inFolder(path string, f func(fd int, name string) error) error {
	dir, name := filepath.Split(path)
	return c.with("./"+dir, unix.O_PATH|unix.O_DIRECTORY, func(d *os.File) error { return f(int(d.Fd()), name) })
}

// operations are what a client does with a file of swappedTree.
var operations = []func(c *client, path string) error{
	func(c *client, path string) error { // read
		return c.with(path, unix.O_RDONLY, func(f *os.File) error {
			text, err := io.ReadAll(f)
			if strings.Contains(string(text), outsideText) {
				c.t.Errorf("%s shows what is outside", path)
			}
			return err
		})
	},
	func(c *client, path string) error { // stat, of the object and of its folder
		return c.inFolder(path, func(fd int, name string) error {
			var st unix.Stat_t
			for _, name := range []string{"", name} {
				if err := unix.Fstatat(fd, name, &st, unix.AT_SYMLINK_NOFOLLOW|unix.AT_EMPTY_PATH); err != nil {
					return err
				}
				if mode := st.Mode & 0o7777; mode == outsideFileMode || mode == outsideDirMode {
					c.t.Errorf("%s has attributes of what is outside", path)
				}
			}
			return nil
		})
	},
	func(c *client, path string) error { // list
		return c.with("./"+filepath.Dir(path), unix.O_RDONLY|unix.O_DIRECTORY, func(f *os.File) error {
			names, err := f.Readdirnames(-1)
			for _, name := range names {
				if name == outsideName {
					c.t.Errorf("the listing of %s shows what is outside", f.Name())
				}
			}
			return err
		})
	},
	func(c *client, path string) error { // write, which copies up
		return c.with(path, unix.O_WRONLY|unix.O_APPEND, func(f *os.File) error { _, err := f.WriteString("+"); return err })
	},
	func(c *client, path string) error { // truncate
		return c.with(path, unix.O_WRONLY|unix.O_TRUNC, func(*os.File) error { return nil })
	},
	func(c *client, path string) error { // chmod
		return c.with(path, unix.O_RDONLY, func(f *os.File) error { return unix.Fchmod(int(f.Fd()), 0o640) })
	},
	func(c *client, path string) error { // times
		return c.inFolder(path, func(fd int, name string) error {
			return unix.UtimesNanoAt(fd, name, make([]unix.Timespec, 2), unix.AT_SYMLINK_NOFOLLOW)
		})
	},
	func(c *client, path string) error { // xattrs
		return c.with(path, unix.O_RDONLY, func(f *os.File) error {
			err := unix.Fsetxattr(int(f.Fd()), "user.of-a-client", []byte("value"), 0)
			_, listed := unix.Flistxattr(int(f.Fd()), make([]byte, 4096))
			return errors.Join(err, listed)
		})
	},
	func(c *client, path string) error { // rename
		return c.inFolder(path, func(fd int, name string) error { return unix.Renameat(fd, name, fd, "renamed") })
	},
	func(c *client, path string) error { // link
		return c.inFolder(path, func(fd int, name string) error { return unix.Linkat(fd, name, fd, "linked", 0) })
	},
	func(c *client, path string) error { // remove
		return c.inFolder(path, func(fd int, name string) error { return unix.Unlinkat(fd, name, 0) })
	},
	func(c *client, path string) error { // create, also in place of a removed one
		return c.inFolder(path, func(fd int, name string) error {
			file, err := unix.Openat(fd, name, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o644)
			if err == nil {
				err = unix.Close(file)
			}
			return err
		})
	},
	func(c *client, path string) error { // a folder
		return c.inFolder(path, func(fd int, _ string) error { return unix.Mkdirat(fd, "made", 0o755) })
	},
	func(c *client, path string) error { // rename of a folder
		dir := filepath.Dir(path)
		if dir == "." {
			dir = path
		}
		return c.inFolder(dir, func(fd int, name string) error { return unix.Renameat(fd, name, fd, name+"-moved") })
	},
	func(c *client, path string) error { // a link's target
		return c.inFolder(path, func(fd int, name string) error {
			_, err := unix.Readlinkat(fd, name, make([]byte, 4096))
			return err
		})
	},
}

// While a mount is used, components of its layer are swapped for symbolic links that lead out of
// it, for magic links, folders, files and fifos. Nothing outside is opened, changed or shown.
func TestSwappedComponents(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachPolicy(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		for _, where := range []string{"a lower", "the upper"} {
			for range factor() {
				swapComponents(t, newEnvLike(t, e), where)
			}
		}
	})
}

// swapComponents is one mount of TestSwappedComponents.
func swapComponents(t *testing.T, e *harness.Env, where string) {
	t.Helper()
	out := makeOutside(t, e)
	var table strings.Builder
	for file := range swappedTree {
		fmt.Fprintf(&table, "file %s 0666 \"text of a layer\"\n", file)
	}
	o := e.Overlay(t, "file d/sub/of-the-lowest\nfile e/one/also")
	top := filepath.Join(e.Dir, "top")
	harness.Mkdir(t, top)
	harness.Build(t, e, top, table.String())
	layer := top
	if where == "the upper" {
		harness.Check(t, os.Remove(o.Upper))
		harness.Check(t, os.Rename(top, o.Upper))
		layer = o.Upper
	} else {
		o.Lowers = append([]string{top}, o.Lowers...)
	}
	o.Opts = append(o.Opts, "timeout=0", harness.Redirects)
	o.Mount()
	raceComponents(t, o, out, layer)
	o.Unmount()
}

// newEnvLike is an Env of its own for a subtest, with the options of another.
func newEnvLike(t *testing.T, e *harness.Env) *harness.Env {
	t.Helper()
	own := harness.NewEnv(t, e.Mode)
	own.Opts = e.Opts
	return own
}

// raceComponents makes operations in a mount while components of a layer are swapped.
func raceComponents(t *testing.T, o *harness.Overlay, out *outside, layer string) {
	t.Helper()
	saved := filepath.Join(o.Env.Dir, "saved")
	harness.Shell(t, o.Env.Dir, "cp -a "+layer+" "+saved)
	s := &swapper{layer: layer, targets: linkTargets(out)}
	wantRaceable(t, s, out)
	restore(t, layer, saved)
	out.watchAll(t)

	root := harness.Open(t, o.Point, os.O_RDONLY)
	files := slices.Collect(maps.Keys(swappedTree))
	r := rand.New(rand.NewPCG(rand.Uint64(), 1))
	c := &client{t: t, root: root, errs: map[string]int{}}
	const operationsOfRound = 25
	for done := 0; done < races && !t.Failed(); done += operationsOfRound {
		file := files[r.IntN(len(files))]
		end := s.start(t, swappedTree[file])
		for range operationsOfRound {
			operation := operations[r.IntN(len(operations))]
			if err := operation(c, file); err != nil {
				c.errs[harness.ErrnoName(err)]++
			} else {
				c.ok++
			}
		}
		end()
		// The layer as it was and an upper without copies: the next round copies up again.
		restore(t, layer, saved)
		if o.Upper != layer {
			empty(t, o.Upper)
		}
	}
	t.Logf("%s: %d operations succeeded, errors %v, %d swaps", filepath.Base(layer), c.ok, c.errs, s.swaps.Load())
	if t.Failed() {
		return
	}
	if c.ok == 0 || len(c.errs) == 0 || s.swaps.Load() == 0 {
		t.Error("there was no race")
	}
	for name := range c.errs {
		switch name {
		case "ENOENT", "ENOTDIR", "ELOOP", "EISDIR", "EEXIST", "EINVAL", "ESTALE", "ENXIO", "ENODATA", "EXDEV", "ENOTEMPTY",
			"EPERM", "EIO", "EACCES": // EACCES: chmod has met a directory
		default:
			t.Errorf("an operation ended with %q", name)
		}
	}
	out.wantUntouched(t)
	for _, dir := range []string{o.Upper, layer} {
		harness.Check(t, filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
			if err != nil || !entry.Type().IsRegular() {
				return err
			}
			text, err := os.ReadFile(path)
			if strings.Contains(string(text), outsideText) {
				t.Errorf("%s is a copy of what is outside", path)
			}
			return err
		}))
	}
	if !harness.Alive(o.PID) {
		t.Error("the daemon has died")
	}
	harness.Check(t, root.Close())
	o.Remount()
	harness.WantText(t, o.Path("d/sub/deep/f"), "text of a layer")
}

// wantRaceable fails the test unless a program that follows links reaches the outside in such a
// race: else the test shows nothing.
func wantRaceable(t *testing.T, s *swapper, out *outside) {
	t.Helper()
	end := s.start(t, []string{"d/sub"})
	reached := harness.Eventually(10*time.Second, func() bool {
		for range 100 {
			if text, _ := os.ReadFile(filepath.Join(s.layer, "d/sub/f")); string(text) == outsideText {
				return true
			}
		}
		return false
	})
	end()
	if !reached {
		t.Error("a program that follows the links does not reach the outside")
	}
	s.swaps.Store(0)
}

// restore makes the content of a layer again. The layer's own directory stays.
func restore(t *testing.T, layer, saved string) {
	t.Helper()
	empty(t, layer)
	harness.Shell(t, layer, "cp -a "+saved+"/. .")
}

// empty removes the content of a directory.
func empty(t *testing.T, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	harness.Check(t, err)
	for _, entry := range entries {
		harness.Check(t, os.RemoveAll(filepath.Join(dir, entry.Name())))
	}
}
