package supervise

import (
	"os"
	"slices"
	"testing"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// TestRequests: the option costs no request, and neither does a death: what the kernel has cached
// stays valid.
func TestRequests(t *testing.T) {
	harness.EachMode(t, modes[:1], func(t *testing.T, e *harness.Env) {
		use := func(o *harness.Overlay) func() {
			return func() {
				harness.Visit(t, o.Point)
				for _, name := range []string{"d00/new", "d01/f00"} {
					harness.Check(t, os.WriteFile(o.Path(name), []byte("text"), 0o644))
				}
				harness.Check(t, os.Rename(o.Path("d00/new"), o.Path("d02/new")))
				harness.Check(t, os.Remove(o.Path("d02/new")))
			}
		}
		// The Go runtime moves Visit from thread to thread, and the samples are of threads.
		e.Opts = append(e.Opts, "disable=samples")
		o := mounted(t, e, harness.ThousandFiles())
		with := o.During(use(o))
		kill(t, o)
		after := o.During(func() { harness.Visit(t, o.Point) })
		o.Unmount()
		o.Opts = slices.DeleteFunc(o.Opts, func(opt string) bool { return opt == "supervise" })
		harness.RemoveTree(o.Upper)
		harness.RemoveTree(o.Work)
		harness.Mkdir(t, o.Upper, o.Work)
		o.Mount()
		without := o.During(use(o))
		delete(with, "FORGET") // which the kernel sends when it likes
		delete(without, "FORGET")
		harness.WantCounts(t, "with the option", with, without, harness.ByKernel)
		if after["LOOKUP"]+after["READ"]+after["READDIRPLUS"]+after["OPEN"] > 60 {
			t.Errorf("requests of a cached tree after a death: %v", after)
		}
	})
}
