package lifetime

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// The program and the kernel refuse a work directory that a volatile mount of either has used. The
// refusal changes nothing.
func TestVolatileIsRemembered(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		o := e.Overlay(t, "file f \"x\"")
		volatile, plain := append([]string{"volatile"}, e.Opts...), e.Opts
		refused := func() {
			t.Helper()
			before := listed(t, o.Work) + listed(t, o.Upper)
			for _, opts := range [][]string{plain, volatile} {
				o.Opts = opts
				out, err := o.TryMount()
				if harness.ExitCode(err) != 1 || strings.Count(out, "\n") != 1 || !strings.Contains(out, o.Work+"/work/incompat") {
					t.Errorf("%v: %v, %q", opts, err, out)
				}
			}
			harness.Equal(t, "the layers", listed(t, o.Work)+listed(t, o.Upper), before)
			if e.Mode != harness.ModeFusermount {
				harness.WantErr(t, "the kernel", o.MountKernelWith(e.KernelUserOption()), syscall.EINVAL)
				harness.WantErr(t, "the kernel", o.MountKernelWith(e.KernelUserOption(), "volatile"), syscall.EINVAL)
			}
		}
		o.Opts = volatile
		o.Mount()
		harness.Write(t, o.Path("f"), "new")
		harness.Equal(t, "the work directory", listed(t, o.Work),
			"work\nwork/incompat\nwork/incompat/volatile\nwork/incompat/volatile/dirty\n")
		o.Unmount()
		refused()
		o.ForgetVolatile()
		o.Opts = plain
		o.Mount()
		harness.WantText(t, o.Path("f"), "new")
		o.Unmount()

		o.Opts = volatile
		o.Mount()
		harness.Write(t, o.Path("g"), "1")
		o.Crash()
		refused()
		o.ForgetVolatile()

		if e.Mode != harness.ModeFusermount {
			harness.Check(t, o.MountKernelWith(e.KernelUserOption(), "volatile"))
			harness.Check(t, os.Remove(o.Path("f")))
			harness.Check(t, harness.UnmountAt(o.Point))
			refused()
			o.ForgetVolatile()
			o.Opts = plain
			o.Mount()
			harness.WantNames(t, o.Point, "g")
			o.Unmount()
		}
		if e.Mode != harness.ModeRoot { // a mount that fails leaves nothing
			o.Opts = []string{"volatile", harness.Passthrough}
			out, err := o.TryMount()
			if harness.ExitCode(err) != 1 || !strings.Contains(out, harness.Passthrough) {
				t.Errorf("passthrough: %v, %q", err, out)
			}
			harness.WantNames(t, filepath.Join(o.Work, "work"))
		}
		// Under the name fuse-overlayfs, a program that leaves no mark, it mounts.
		compat := filepath.Join(e.Dir, "fuse-overlayfs")
		harness.Check(t, os.Symlink(harness.Program, compat))
		o.Program, o.Opts = compat, volatile
		o.Mount()
		o.Remount()
		o.Unmount()
		if log := harness.ReadText(t, o.Log); strings.Count(log, "was volatile") != 1 {
			t.Errorf("the log:\n%s", log)
		}
		o.Program = ""
		refused()
		o.ForgetVolatile()
		o.Opts = volatile
		o.Upper = ""
		o.Mount() // read-only: the option has no effect
		if log := harness.ReadText(t, o.Log); !strings.Contains(log,
			"option volatile is of no use without an upperdir, and is ignored") {
			t.Errorf("no such line in the log:\n%s", log)
		}
		harness.WantNames(t, filepath.Join(o.Work, "work"))
		o.Unmount()
	})
}
