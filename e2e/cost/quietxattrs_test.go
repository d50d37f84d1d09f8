package cost

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// A comparison of trees by a container engine requests xattrs of each object. Where no layer has
// one, a second comparison sends no such request.
func TestRequestsOfAComparison(t *testing.T) {
	const objects = 1020
	for _, tt := range []struct {
		name   string
		what   harness.Requested
		more   string // lines of the lower
		opts   []string
		quiet  bool
		wanted harness.Counts // of a later comparison
	}{
		{"podman", harness.CapabilitiesAndLists, "", nil, true, nil},
		{"docker", harness.Capabilities, "", nil, true, nil},
		{"one xattr", harness.CapabilitiesAndLists, "xattr d00/f00 user.x v\n", nil, false,
			harness.Counts{"GETXATTR": objects, "LISTXATTR": objects}},
		{"turned off", harness.CapabilitiesAndLists, "", []string{"disable=quiet_xattrs"}, false,
			harness.Counts{"GETXATTR": objects, "LISTXATTR": objects}},
		{"layers change", harness.CapabilitiesAndLists, "", []string{"timeout=0"}, false, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			harness.EachMode(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
				o := e.ReadByEngine(t, harness.ThousandFiles()+tt.more)
				o.Opts = append(o.Opts, tt.opts...)
				o.Mount()
				n, answers := harness.Compared(t, o.Point, tt.what)
				harness.Equal(t, "objects", n, objects)
				if got := answers["ENODATA"] + answers["ENOTSUP"]; tt.quiet && answers["ENODATA"] < 256 || got < objects {
					t.Errorf("the first comparison: %v", answers)
				}
				wait := 10 * time.Second
				if !tt.quiet {
					wait = time.Second
				}
				harness.Equal(t, "quiet", o.IsQuiet(wait), tt.quiet)
				harness.Compared(t, o.Point, tt.what) // so that the kernel gets ENOSYS, and caches all else
				if tt.wanted == nil && !tt.quiet {
					return
				}
				got := o.During(func() { _, answers = harness.Compared(t, o.Point, tt.what) })
				harness.WantCounts(t, "a later comparison", got, tt.wanted, nil)
				if tt.quiet && answers["ENOTSUP"] != objects*(1+int(tt.what)) {
					t.Errorf("a later comparison: %v", answers)
				}
			})
		})
	}
}

// A caller that requests no lists gets them as before.
func TestListsAfterAComparisonWithoutThem(t *testing.T) {
	harness.EachMode(t, harness.OnlyRoot, func(t *testing.T, e *harness.Env) {
		o := e.ReadByEngine(t, harness.ThousandFiles())
		o.Mount()
		harness.Compared(t, o.Point, harness.Capabilities)
		harness.Equal(t, "quiet", o.IsQuiet(10*time.Second), true)
		harness.Equal(t, "a value", harness.XattrOf(o.Path("d00/f00"), "user.x"), "ENOTSUP")
		n, err := unix.Llistxattr(o.Path("d00/f00"), nil)
		harness.Check(t, err)
		harness.Equal(t, "the size of the list", n, 0)
	})
}
