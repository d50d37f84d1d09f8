package cost

import (
	"fmt"
	"io"
	"os"
	"testing"
	"time"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// With cache_inodes= the kernel caches few unused inodes of a mount. Inodes in use stay.
func TestCacheInodes(t *testing.T) {
	harness.Raced(t)
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		const bound = 100
		o := e.Overlay(t, harness.ThousandFiles())
		o.Opts = []string{fmt.Sprintf("cache_inodes=%d", bound)}
		o.Mount()
		f := harness.Open(t, o.Path("d00/f00"), os.O_RDONLY)
		was := harness.Lstat(t, o.Path("d00/f00")).Ino
		for range 3 {
			before := o.Requests()["FORGET"]
			harness.Equal(t, "files", harness.Visit(t, o.Point), 1000)
			// Each visit needs a thousand inodes, so all but the bound are evicted.
			if !harness.Eventually(5*time.Second, func() bool { return o.Requests()["FORGET"]-before >= 1000-2*bound }) {
				t.Fatalf("%d of 1000 inodes were forgotten", o.Requests()["FORGET"]-before)
			}
		}
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(f)
		harness.Check(t, err)
		harness.WantText(t, o.Path("d00/f00"), string(text))
		harness.Equal(t, "number", harness.Lstat(t, o.Path("d00/f00")).Ino, was)
		harness.Check(t, f.Close())
	})
}
