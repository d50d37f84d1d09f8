package lifetime

import (
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// A directory that the kernel's overlayfs uses as upper or work directory is refused, by whatever
// path. Nothing is changed.
func TestUpperInUseByTheKernel(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.RootModes, func(t *testing.T, e *harness.Env) {
		o := e.Overlay(t, "file f \"x\"")
		harness.Check(t, o.MountKernelWith(e.KernelUserOption()))
		harness.Write(t, o.Path("g"), "by the kernel")
		harness.Mkdir(t, e.Dir+"/work2", e.Dir+"/upper2", e.Dir+"/mnt2", e.Dir+"/bound")
		harness.Check(t, os.Symlink(o.Upper, e.Dir+"/link"))
		harness.Check(t, unix.Mount(e.Dir, e.Dir+"/bound", "", unix.MS_BIND, ""))
		defer func() { harness.Check(t, harness.UnmountAt(e.Dir+"/bound")) }()
		before := listed(t, o.Upper) + listed(t, o.Work)
		for what, c := range map[string]struct{ upper, work string }{
			"both":                  {o.Upper, o.Work},
			"the upper":             {o.Upper, e.Dir + "/work2"},
			"the work directory":    {e.Dir + "/upper2", o.Work},
			"by a symbolic link":    {e.Dir + "/link", e.Dir + "/work2"},
			"through another mount": {e.Dir + "/bound/upper", e.Dir + "/bound/work2"},
		} {
			second := &harness.Overlay{T: t, Env: e, Lowers: o.Lowers, Upper: c.upper, Work: c.work, Point: e.Dir + "/mnt2"}
			out, err := second.TryMount()
			if harness.ExitCode(err) != 1 || !strings.Contains(out, "in use by the kernel's overlayfs on \""+o.Point+
				"\" (EBUSY)") {
				t.Errorf("%s: %v, %q", what, err, out)
			}
		}
		harness.Equal(t, "the layers", listed(t, o.Upper)+listed(t, o.Work), before)
		other := &harness.Overlay{T: t, Env: e, Lowers: []string{o.Lowers[0]}, Upper: e.Dir + "/upper2", Work: e.Dir +
			"/work2", Point: e.Dir + "/mnt2"}
		other.Mount() // of the same lower
		other.Unmount()
		harness.Check(t, harness.UnmountAt(o.Point))
		o.Mount()
		harness.WantText(t, o.Path("g"), "by the kernel")
	})
}

// A mount of the program in another namespace is found too, because the lock is on the directory.
func TestUpperInUseInAnotherNamespace(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.OnlyRoot, func(t *testing.T, e *harness.Env) {
		o := e.Mounted(t, "file f \"x\"")
		out, err := harness.Run("unshare", "-m", harness.Program, "-o", "lowerdir="+o.Lowers[0]+",upperdir="+o.Upper+
			",workdir="+o.Work, o.Point)
		if harness.ExitCode(err) != 1 || !strings.Contains(out, "(EBUSY)") {
			t.Errorf("%v, %q", err, out)
		}
		harness.WantText(t, o.Path("f"), "x")
	})
}
