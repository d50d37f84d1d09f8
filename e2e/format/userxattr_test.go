package format

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// userxattr: the marks are user.overlay.*, and nothing else is one, in this program as in the kernel.

// userxattrLower has marks of both namespaces; those of trusted are content.
const userxattrLower = `
	file d/f "1"
	file d/s/g "2"
	file gone "3"
	dir t
	file t/f "4"
	file f "5"
	xattr f user.a 1
	dir stays/in
	file stays/in/h "6"`

// trustedMarks puts attributes in the way that would mean something to another mount.
func trustedMarks(t *testing.T, e *harness.Env, dir string) {
	t.Helper()
	if e.Mode != harness.ModeRoot {
		return
	}
	harness.Check(t, unix.Setxattr(dir+"/t", "trusted.overlay.opaque", []byte("y"), 0))
	harness.Check(t, unix.Setxattr(dir+"/t", "trusted.overlay.redirect", []byte("/d"), 0))
	harness.Check(t, unix.Setxattr(dir+"/t/f", "trusted.overlay.whiteout", nil, 0))
	harness.Check(t, unix.Setxattr(dir+"/f", "trusted.overlay.origin", []byte("o"), 0))
	harness.Check(t, unix.Setxattr(dir+"/f", "trusted.overlay.overlay.opaque", []byte("y"), 0))
}

// useUserxattr does all that leaves marks, and answers with what it was told on the way.
func useUserxattr(t *testing.T, e *harness.Env, o *harness.Overlay) string {
	t.Helper()
	var told []string
	tell := func(what string, err error) { told = append(told, what+" "+harness.ErrnoName(err)) }
	set := func(path, name, value string) {
		tell("set "+name+" "+path, unix.Setxattr(o.Path(path), name, []byte(value), 0))
	}
	harness.Check(t, os.Remove(o.Path("gone")))
	harness.Check(t, os.RemoveAll(o.Path("d")))
	harness.Check(t, os.Mkdir(o.Path("d"), 0o755))
	harness.Write(t, o.Path("d/new"), "n")
	harness.AppendTo(t, o.Path("f"), "+")
	harness.Check(t, os.Remove(o.Path("stays/in/h")))
	tell("rename of a directory with lower parts", os.Rename(o.Path("stays"), o.Path("moved")))
	set("f", "user.overlay.origin", "mine")
	set("stays", "user.overlay.opaque", "y")
	set("f", "user.overlay.overlay.redirect", "r")
	if e.Mode == harness.ModeRoot {
		set("f", "trusted.overlay.set", "v")
		set("stays", "trusted.overlay.opaque", "y")
	}
	for _, name := range []string{"user.overlay.origin", "user.overlay.opaque", "trusted.overlay.origin", "trusted.overlay.overlay.opaque", "trusted.overlay.opaque"} {
		for _, path := range []string{"f", "d", "t", "stays"} {
			told = append(told, path+" "+name+"="+harness.XattrOf(o.Path(path), name))
		}
	}
	return strings.Join(told, "\n")
}

func TestUserxattrAndTheKernel(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.RootModes, func(t *testing.T, e *harness.Env) {
		sides := map[bool]*harness.Overlay{}
		mount := func(o *harness.Overlay, kernel bool) {
			t.Helper()
			o.Kernel = kernel
			if kernel {
				harness.Check(t, o.MountKernelWith("userxattr"))
				return
			}
			o.Opts = append([]string{"userxattr"}, e.Opts...)
			o.Mount()
		}
		unmount := func(o *harness.Overlay) {
			t.Helper()
			harness.Check(t, o.TryUnmount())
			if !o.Kernel {
				o.WaitEnd()
			}
		}
		// Which handles are kept, and that the upper has a number of its own, is not the question here.
		marked := harness.FullView
		marked.Xattr = func(_, name string) (string, bool) {
			return name, name != "user.overlay.origin" && name != "user.overlay.uuid"
		}
		told, views, marks := map[bool]string{}, map[bool]map[string]string{}, map[bool]map[string]string{}
		for _, kernel := range []bool{false, true} {
			side := harness.NewEnv(t, e.Mode)
			o := side.Overlay(t, userxattrLower, "file t/below \"7\"")
			trustedMarks(t, e, o.Lowers[0])
			sides[kernel] = o
			mount(o, kernel)
			told[kernel] = useUserxattr(t, e, o)
			view, err := harness.Snapshot(o.Point, harness.FullView)
			harness.Check(t, err)
			views[kernel] = view
			unmount(o)
			marks[kernel], err = harness.Snapshot(o.Upper, marked)
			harness.Check(t, err)
		}
		harness.Equal(t, "what this program says", told[false], told[true])
		if d := harness.DiffLines(views[true], views[false]); d != "" {
			t.Errorf("the trees differ:\n%s", d)
		}
		if d := harness.DiffLines(marks[true], marks[false]); d != "" {
			t.Errorf("the uppers differ:\n%s", d)
		}
		for kernel, o := range sides { // each shows what the other has written
			mount(o, !kernel)
			view, err := harness.Snapshot(o.Point, harness.FullView)
			harness.Check(t, err)
			unmount(o)
			if d := harness.DiffLines(views[kernel], view); d != "" {
				t.Errorf("written by the kernel: %v, and not what the other shows:\n%s", kernel, d)
			}
		}
	})
}

// A redirect is refused with userxattr, as in the kernel, and so are metacopies.
func TestUserxattrFollowsNoRedirects(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.RootModes, func(t *testing.T, e *harness.Env) {
		o := e.Overlay(t, "dir d\nfile e/f \"1\"", "file low/g \"2\"")
		harness.Check(t, unix.Setxattr(filepath.Join(o.Lowers[0], "d"), "user.overlay.redirect", []byte("/low"), 0))
		harness.Check(t, o.MountKernelWith("userxattr"))
		_, err := os.ReadDir(o.Path("d"))
		harness.WantErr(t, "the kernel", err, syscall.EPERM)
		harness.Check(t, harness.UnmountAt(o.Point))
		o.Opts = append(o.Opts, "userxattr")
		o.Mount()
		_, err = os.ReadDir(o.Path("d"))
		harness.WantErr(t, "this program", err, syscall.EPERM)
		harness.WantNames(t, o.Path("e"), "f")
	})
}

// Files of a lower whose data is in a data-only layer are the exception: rootless mounts are made of them.
func TestUserxattrAndDataOnlyLayers(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.RootModes, func(t *testing.T, e *harness.Env) {
		o := e.Overlay(t, "file d/f\nfile plain \"p\"", "file objects/f \"data\"")
		f := filepath.Join(o.Lowers[0], "d/f")
		harness.Check(t, os.Truncate(f, 4))
		harness.Check(t, unix.Setxattr(f, "user.overlay.metacopy", nil, 0))
		harness.Check(t, unix.Setxattr(f, "user.overlay.redirect", []byte("/objects/f"), 0))
		o.Lowers = []string{o.Lowers[0] + "::" + o.Lowers[1]}
		want := "file d/f \"data\"\nfile plain \"p\""
		harness.Check(t, o.MountKernelWith("userxattr"))
		harness.WantTree(t, "the kernel", o.Point, want)
		harness.Check(t, harness.UnmountAt(o.Point))
		o.Opts = append(o.Opts, "userxattr")
		o.Mount()
		harness.WantTree(t, "this program", o.Point, want)
		harness.AppendTo(t, o.Path("d/f"), "+")
		o.Remount()
		harness.WantText(t, o.Path("d/f"), "data+")
	})
}
