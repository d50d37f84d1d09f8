package faults

import (
	"slices"
	"syscall"
	"testing"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
	"github.com/fuse-overlay/fuse-overlay/internal/testkit"
)

// A change that exceeds a quota of the upper's file system fails with EDQUOT and leaves the tree as
// it was. The quota is that of a subvolume of btrfs, which binds root too: each kernel that has
// btrfs has it.
func TestQuotaAtEachChange(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachIO(t, harness.OnlyRoot, func(t *testing.T, e *harness.Env) {
		dir := testkit.MountImage(t, "btrfs", "")
		sub := dir + "/sub"
		for _, args := range [][]string{
			{"quota", "enable", dir}, {"subvolume", "create", sub}, {"qgroup", "limit", "24M", sub},
		} {
			if out, err := harness.Run("btrfs", args...); err != nil {
				t.Fatalf("btrfs %q: %v: %s", args, err, out)
			}
		}
		s := &shortage{dir: sub, expected: syscall.EDQUOT}
		refused := tryScarce(t, e, s, true, "index=on,redirect_dir=on,metacopy=on")
		for _, c := range []string{"copy-up of data", "write", "append", "mapped write", "fallocate"} {
			if !slices.Contains(refused, c) {
				t.Errorf("%q is not refused", c)
			}
		}
	})
}
