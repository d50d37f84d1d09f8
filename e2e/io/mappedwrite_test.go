package io

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// A write by a mapping changes st_mtime: at once if the kernel keeps the times of files, else when
// it writes the page back, and then in place of a time that was set after the write (D83).
func TestTimeOfAWriteByMapping(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		for _, opt := range []string{"writeback=1", "writeback=0", "timeout=0"} {
			harness.WithOption(t, e.Mode, opt, func(t *testing.T, e *harness.Env) {
				o := e.Mounted(t, "file f 0644 text")
				f, err := os.OpenFile(o.Path("f"), os.O_RDWR, 0)
				harness.Check(t, err)
				defer f.Close()
				mem, err := unix.Mmap(int(f.Fd()), 0, 4, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
				harness.Check(t, err)
				defer func() { harness.Check(t, unix.Munmap(mem)) }()
				mtime := func() string { return harness.TimeClass(harness.Lstat(t, o.Path("f")).Mtim) }

				for i := range mem {
					harness.Check(t, harness.SetTimes(o.Path("f"), harness.OldTime))
					want := "now"
					if opt != "writeback=1" {
						want = mtime()
					}
					mem[i] = 'T'
					if got := mtime(); got != want {
						t.Errorf("after write %d st_mtime is %s, want %s", i, got, want)
					}
				}
				harness.Check(t, harness.SetTimes(o.Path("f"), harness.OldTime))
				old := mtime()
				harness.Check(t, unix.Msync(mem, unix.MS_SYNC))
				want := "now"
				if opt == "writeback=1" { // written back before the time was set
					want = old
				}
				if got := mtime(); got != want {
					t.Errorf("after msync st_mtime is %s, want %s", got, want)
				}
			})
		}
	})
}
