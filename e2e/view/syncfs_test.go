package e2e

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// After syncfs(2) or a remount as read-only (D46) the data of the mount's page cache is in the
// upper. The kernel sends no SYNCFS, so the data need not be on the disk.
func TestSyncOfTheMountIsNotSeen(t *testing.T) {
	needDaemon(t)
	eachMode(t, onlyRoot, func(t *testing.T, e *env) {
		e.opts = []string{"writeback=1"}
		o := e.mounted(t, "dir d")
		synced := func(what string, f func()) {
			t.Helper()
			for name, n := range o.during(f) {
				if name == "SYNCFS" || name == "FSYNC" || name == "FSYNCDIR" {
					t.Errorf("%s: %d requests %s: the kernel asks now, so D46 is to go", what, n, name)
				}
			}
		}
		f := open(t, o.path("f"), os.O_RDWR|os.O_CREATE)
		_, err := f.WriteString("text")
		check(t, err)
		root := open(t, o.mnt, os.O_RDONLY)
		synced("syncfs", func() { check(t, unix.Syncfs(int(root.Fd()))) })
		wantText(t, filepath.Join(o.upper, "f"), "text")
		check(t, f.Close())
		check(t, root.Close())
		write(t, o.path("g"), "text")
		synced("remount", func() { check(t, unix.Mount("", o.mnt, "", unix.MS_REMOUNT|unix.MS_RDONLY, "")) })
		wantText(t, filepath.Join(o.upper, "g"), "text")
		wantErr(t, "a write", os.WriteFile(o.path("h"), nil, 0o644), syscall.EROFS)
	})
}
