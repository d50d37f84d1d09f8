package cost

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// The kernel answers listings of a directory that no longer changes, whatever happened while others
// listed it.
func TestRequestsListingAfterChanges(t *testing.T) {
	cases := []struct {
		name  string
		files int
		run   func(t *testing.T, dir string)
	}{
		{"unchanged, the kernel's copy fills a page", 126, func(*testing.T, string) {}},
		{"changed between listings", 300, func(t *testing.T, dir string) {
			list(t, dir)
			harness.Check(t, os.Remove(dir+"/f7"))
			list(t, dir)
		}},
		{"changed during a listing", 300, func(t *testing.T, dir string) {
			harness.Write(t, dir+"/new", "")
			f := harness.Open(t, dir, os.O_RDONLY)
			beginListing(t, f)
			harness.Check(t, os.Remove(dir+"/f7"))
			_, err := f.Readdirnames(-1)
			harness.Check(t, err)
			harness.Check(t, f.Close())
			list(t, dir)
		}},
		{"changed after a listing that no process went on with", 300, func(t *testing.T, dir string) {
			harness.Write(t, dir+"/new", "")
			f := harness.Open(t, dir, os.O_RDONLY)
			beginListing(t, f)
			harness.Check(t, f.Close())
			harness.Check(t, os.Remove(dir+"/new"))
			list(t, dir)
			list(t, dir)
		}},
	}
	harness.EachMode(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		e.NeedCached(t)
		var layer strings.Builder
		for i, c := range cases {
			for k := range c.files {
				fmt.Fprintf(&layer, "file d%d/f%d \"\"\n", i, k)
			}
		}
		o := e.Mounted(t, "", layer.String())
		for i, c := range cases {
			dir := o.Path(fmt.Sprint("d", i))
			list(t, dir)
			c.run(t, dir)
			list(t, dir)
			harness.WantCounts(t, c.name, o.Steady(func() { list(t, dir) }), nil, nil)
		}
	})
}

func list(t *testing.T, dir string) {
	t.Helper()
	_, err := os.ReadDir(dir)
	harness.Check(t, err)
}

// beginListing makes one small getdents call.
func beginListing(t *testing.T, f *os.File) {
	t.Helper()
	_, err := harness.Getdents(f, 400)
	harness.Check(t, err)
}
