package view

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// After syncfs(2) or a remount as read-only (D46) the data of the mount's page cache is in the
// upper. The kernel sends no SYNCFS, so the data need not be on the disk.
func TestSyncOfTheMountIsNotSeen(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.OnlyRoot, func(t *testing.T, e *harness.Env) {
		e.Opts = []string{"writeback=1"}
		o := e.Mounted(t, "dir d")
		synced := func(what string, f func()) {
			t.Helper()
			for name, n := range o.During(f) {
				if name == "SYNCFS" || name == "FSYNC" || name == "FSYNCDIR" {
					t.Errorf("%s: %d requests %s: the kernel sends it: remove D46", what, n, name)
				}
			}
		}
		f := harness.Open(t, o.Path("f"), os.O_RDWR|os.O_CREATE)
		_, err := f.WriteString("text")
		harness.Check(t, err)
		root := harness.Open(t, o.Point, os.O_RDONLY)
		synced("syncfs", func() { harness.Check(t, unix.Syncfs(int(root.Fd()))) })
		harness.WantText(t, filepath.Join(o.Upper, "f"), "text")
		harness.Check(t, f.Close())
		harness.Check(t, root.Close())
		harness.Write(t, o.Path("g"), "text")
		synced("remount", func() { harness.Check(t, unix.Mount("", o.Point, "", unix.MS_REMOUNT|unix.MS_RDONLY, "")) })
		harness.WantText(t, filepath.Join(o.Upper, "g"), "text")
		harness.WantErr(t, "a write", os.WriteFile(o.Path("h"), nil, 0o644), syscall.EROFS)
	})
}
