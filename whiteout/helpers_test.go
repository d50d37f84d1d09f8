package whiteout

import (
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/ondisk"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
	"github.com/fuse-overlay/fuse-overlay/internal/testkit"
	"github.com/fuse-overlay/fuse-overlay/internal/testkit/systest"
)

func TestMain(m *testing.M) { testkit.Main(m) }

var (
	must     = testkit.Must
	open     = systest.Folder
	refusing = systest.While
)

// openBoth opens an upper and a work directory in a folder.
func openBoth(t *testing.T, path string) (up, work *sys.Dir) {
	t.Helper()
	testkit.Build(t, path, "dir up\ndir work")
	up, work, err := sys.OpenUpper(filepath.Join(path, "up"), filepath.Join(path, "work"), 0)
	must(t, err)
	t.Cleanup(work.Close)
	return up, work
}

// ramfs has neither extended attributes nor ACLs.
func ramfs(t *testing.T) string {
	t.Helper()
	point := t.TempDir()
	must(t, unix.Mount("ramfs", point, "ramfs", 0, ""))
	t.Cleanup(func() { must(t, unix.Unmount(point, unix.MNT_DETACH)) })
	return point
}

func list(t *testing.T, d *sys.Dir) []string {
	t.Helper()
	var names []string
	must(t, d.List(func(e sys.Dirent) error { names = append(names, e.Name); return nil }))
	return names
}

// both are the names of a mount without userxattr.
var both ondisk.Names

// testWork is a work directory.
type testWork struct {
	dir  *sys.Dir
	path string
	last atomic.Uint64
}

func (w *testWork) Dir() *sys.Dir            { return w.dir }
func (w *testWork) Name() string             { return fmt.Sprintf("#%x", w.last.Add(1)) }
func (w *testWork) Remove(name string) error { return os.RemoveAll(filepath.Join(w.path, name)) }

// An upper is an upper in which a [Maker] writes.
type upper struct {
	*Maker
	t    *testing.T
	dir  *sys.Dir
	path string
	work *testWork
}

// newUpper makes an upper with the objects of a table of package testkit.
func newUpper(t *testing.T, table string) *upper {
	t.Helper()
	base := t.TempDir()
	var up, dir *sys.Dir
	systest.WithoutClones(func() { up, dir = openBoth(t, base) })
	t.Cleanup(up.Close)
	u := &upper{t: t, dir: up, path: filepath.Join(base, "up"), work: &testWork{dir: dir, path: filepath.Join(base, "work")}}
	var err error
	u.Maker, err = NewMaker(u.work, nameMax, Wanted{})
	must(t, err)
	testkit.Build(t, u.path, table)
	return u
}

// look returns what an overlay sees in the upper: the type of the object under a name, 0 if there
// is none, and whether a lower's object is hidden. It makes no call that the fault seam sees.
func (u *upper) look(name string) (kind uint32, hidden bool) {
	u.t.Helper()
	var st unix.Stat_t
	path := filepath.Join(u.path, name)
	if err := unix.Lstat(path, &st); err == nil {
		kind = st.Mode & unix.S_IFMT
		_, err := unix.Lgetxattr(path, "trusted.overlay.whiteout", nil)
		if kind == unix.S_IFCHR && st.Rdev == 0 || err == nil {
			kind = 0
		}
		hidden = true
	}
	if _, err := os.Lstat(filepath.Join(filepath.Dir(path), Marker(filepath.Base(path)))); err == nil {
		hidden = true
	}
	return kind, hidden
}

// want checks what the upper has under a name.
func (u *upper) want(what, name string, kind uint32, hidden bool) {
	u.t.Helper()
	if k, h := u.look(name); k != kind || h != hidden {
		u.t.Errorf("%s: %s is of type %#o, hidden %v, want %#o and %v", what, name, k, h, kind, hidden)
	}
}

// dress leaves an empty directory as it is.
func (u *upper) dress(_, _ *sys.Dir) error { return nil }

// wantEmptyWork fails if more than the shared device is left in the work directory.
func (u *upper) wantEmptyWork(what string) {
	u.t.Helper()
	for _, name := range list(u.t, u.work.dir) {
		if shared := u.shared.Load(); shared == nil || *shared != name {
			u.t.Errorf("%s: %s is left in the work directory", what, name)
		}
	}
}

// entry is the name as the upper has it. lower: an object of a lower is below it.
func (u *upper) entry(name string, lower bool) Entry {
	u.t.Helper()
	e := Entry{Dir: u.dir, Name: name, Below: lower}
	_, err := os.Lstat(filepath.Join(u.path, Marker(name)))
	e.Marker = err == nil
	switch kind, hidden := u.look(name); {
	case kind == unix.S_IFDIR:
		e.Has = Directory
	case kind != 0:
		e.Has = File
	case hidden && !e.Marker:
		e.Has = InPlace
	case lower && !hidden:
		e.Has = Lower
	}
	return e
}

// forms are the ways in which an upper may have to be written.
var forms = map[string]func(*upper){
	"devices":            func(*upper) {},
	"no RENAME_WHITEOUT": func(u *upper) { u.Forms.Default.RenameWhiteout = false },
	"xattrs": func(u *upper) {
		u.Forms.Default = Format{Xattrs: ondisk.Trusted, WhiteoutXattrs: true}
	},
	"markers":            func(u *upper) { u.Forms.Default = Format{Xattrs: ondisk.Trusted} },
	"markers, no xattrs": func(u *upper) { u.Forms.Default = Format{} },
	"long names, xattrs": func(u *upper) {
		u.Forms = Forms{Default: Format{Xattrs: ondisk.Trusted}, Long: Format{Xattrs: ondisk.Trusted, WhiteoutXattrs: true}}
	},
	"long names, devices": func(u *upper) {
		u.Forms = Forms{Long: Format{Devices: true, RenameWhiteout: true}}
	},
}

// A run is one run of an operation: in a form, with or without flags of renameat2, or with one call
// that fails.
type run struct {
	*upper
	noFlags bool
	fail    int // the number of the call that fails; -1: none
	calls   int // that the operation has made
}

// inEachForm runs f for each form, with and without flags of renameat2, and then with each call
// failing in turn.
func inEachForm(t *testing.T, table string, f func(r *run)) {
	t.Helper()
	for name, set := range forms {
		one := func(noFlags bool, fail int) int {
			r := &run{upper: newUpper(t, table), noFlags: noFlags, fail: fail}
			set(r.upper)
			f(r)
			if t.Failed() {
				t.Fatalf("form %s, no flags %v, call %d fails", name, noFlags, fail)
			}
			return r.calls
		}
		one(true, -1)
		for fail := range one(false, -1) {
			one(false, fail)
		}
	}
}

// watched runs an operation, and look before each system call.
func (r *run) watched(look, operation func()) {
	sys.SetFault(func(op sys.Op) error {
		look()
		r.calls++
		switch {
		case r.calls-1 == r.fail:
			return unix.EIO
		case r.noFlags && op.Call == "renameat2":
			return unix.EINVAL
		}
		return nil
	})
	defer sys.SetFault(nil)
	operation()
}
