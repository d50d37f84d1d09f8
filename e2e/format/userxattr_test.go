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

// With userxattr the overlay xattrs are user.overlay.*, and no others, here as in the kernel.

// userxattrLower has xattrs of both namespaces. With userxattr those of trusted are content.
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

// trustedMarks sets trusted xattrs that a mount without userxattr would obey.
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

// useUserxattr makes the changes that write overlay xattrs, and returns their results.
func useUserxattr(t *testing.T, e *harness.Env, o *harness.Overlay) string {
	t.Helper()
	var results []string
	result := func(what string, err error) { results = append(results, what+" "+harness.ErrnoName(err)) }
	set := func(path, name, value string) {
		result("set "+name+" "+path, unix.Setxattr(o.Path(path), name, []byte(value), 0))
	}
	harness.Check(t, os.Remove(o.Path("gone")))
	harness.Check(t, os.RemoveAll(o.Path("d")))
	harness.Check(t, os.Mkdir(o.Path("d"), 0o755))
	harness.Write(t, o.Path("d/new"), "n")
	harness.AppendTo(t, o.Path("f"), "+")
	harness.Check(t, os.Remove(o.Path("stays/in/h")))
	result("rename of a directory with lower parts", os.Rename(o.Path("stays"), o.Path("moved")))
	set("f", "user.overlay.origin", "mine")
	set("stays", "user.overlay.opaque", "y")
	set("f", "user.overlay.overlay.redirect", "r")
	if e.Mode == harness.ModeRoot {
		set("f", "trusted.overlay.set", "v")
		set("stays", "trusted.overlay.opaque", "y")
	}
	for _, name := range []string{"user.overlay.origin", "user.overlay.opaque", "trusted.overlay.origin",
		"trusted.overlay.overlay.opaque", "trusted.overlay.opaque"} {
		for _, path := range []string{"f", "d", "t", "stays"} {
			results = append(results, path+" "+name+"="+harness.XattrOf(o.Path(path), name))
		}
	}
	return strings.Join(results, "\n")
}

// escapesSince is the first version of Linux whose overlayfs stores xattrs of another overlay under
// escaped names (ovl_xattr_escape_name), and whiteouts as xattrs.
var escapesSince = [2]int{6, 7}

func TestUserxattrAndTheKernel(t *testing.T) {
	harness.NeedDaemon(t)
	if !harness.KernelAtLeast(t, escapesSince[0], escapesSince[1]) {
		t.Skip("before Linux 6.7 the kernel's overlayfs escapes no xattrs")
	}
	harness.EachMode(t, harness.RootModes, func(t *testing.T, e *harness.Env) {
		sides := map[harness.Implementation]*harness.Overlay{}
		mount := func(o *harness.Overlay, by harness.Implementation) {
			t.Helper()
			if o.Kernel = by == harness.Kernel; o.Kernel {
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
		// The handles and the UUID of the upper differ between any two uppers.
		marked := harness.FullView
		marked.Xattr = func(_, name string) (string, bool) {
			return name, name != "user.overlay.origin" && name != "user.overlay.uuid"
		}
		results := map[harness.Implementation]string{}
		views, uppers := map[harness.Implementation]map[string]string{}, map[harness.Implementation]map[string]string{}
		for _, by := range []harness.Implementation{harness.Ours, harness.Kernel} {
			side := harness.NewEnv(t, e.Mode)
			o := side.Overlay(t, userxattrLower, "file t/below \"7\"")
			trustedMarks(t, e, o.Lowers[0])
			sides[by] = o
			mount(o, by)
			results[by] = useUserxattr(t, e, o)
			view, err := harness.Snapshot(o.Point, harness.FullView)
			harness.Check(t, err)
			views[by] = view
			unmount(o)
			uppers[by], err = harness.Snapshot(o.Upper, marked)
			harness.Check(t, err)
		}
		harness.Equal(t, "the results", results[harness.Ours], results[harness.Kernel])
		if d := harness.DiffLines(views[harness.Kernel], views[harness.Ours]); d != "" {
			t.Errorf("the trees differ:\n%s", d)
		}
		if d := harness.DiffLines(uppers[harness.Kernel], uppers[harness.Ours]); d != "" {
			t.Errorf("the uppers differ:\n%s", d)
		}
		other := map[harness.Implementation]harness.Implementation{
			harness.Ours: harness.Kernel, harness.Kernel: harness.Ours,
		}
		for writer, o := range sides { // each shows what the other has written
			mount(o, other[writer])
			view, err := harness.Snapshot(o.Point, harness.FullView)
			harness.Check(t, err)
			unmount(o)
			if d := harness.DiffLines(views[writer], view); d != "" {
				t.Errorf("the upper of %s, mounted by %s, shows another tree:\n%s", writer, other[writer], d)
			}
		}
	})
}

// With userxattr redirects and metacopies are refused, as in the kernel.
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

// Metacopies of a lower whose data is in a data-only layer are the exception, because rootless
// mounts consist of them.
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
		if harness.KernelAtLeast(t, 6, 16) { // earlier ones refuse such layers
			harness.Check(t, o.MountKernelWith("userxattr"))
			harness.WantTree(t, "the kernel", o.Point, want)
			harness.Check(t, harness.UnmountAt(o.Point))
		}
		o.Opts = append(o.Opts, "userxattr")
		o.Mount()
		harness.WantTree(t, "this program", o.Point, want)
		harness.AppendTo(t, o.Path("d/f"), "+")
		o.Remount()
		harness.WantText(t, o.Path("d/f"), "data+")
	})
}
