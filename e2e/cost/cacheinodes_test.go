package e2e

import (
	"fmt"
	"io"
	"os"
	"testing"
	"time"
)

// With cache_inodes= the kernel keeps few inodes of a mount that nobody uses, and those in use stay.
func TestCacheInodes(t *testing.T) {
	needDaemon(t)
	eachMode(t, allModes, func(t *testing.T, e *env) {
		const bound = 100
		o := e.overlay(t, thousandFiles())
		o.opts = []string{fmt.Sprintf("cache_inodes=%d", bound)}
		o.mount()
		f := open(t, o.path("d00/f00"), os.O_RDONLY)
		was := lstat(t, o.path("d00/f00")).Ino
		for range 3 {
			before := o.requests()["FORGET"]
			equal(t, "files", visit(t, o.mnt), 1000)
			// Each visit makes a thousand, so all but the bound have to go.
			if !eventually(5*time.Second, func() bool { return o.requests()["FORGET"]-before >= 1000-2*bound }) {
				t.Fatalf("%d of 1000 inodes were forgotten", o.requests()["FORGET"]-before)
			}
		}
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(f)
		check(t, err)
		wantText(t, o.path("d00/f00"), string(text))
		equal(t, "number", lstat(t, o.path("d00/f00")).Ino, was)
		check(t, f.Close())
	})
}
