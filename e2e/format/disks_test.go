package format

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
	"github.com/fuse-overlay/fuse-overlay/internal/testkit"
)

// formatDisks are the types of the file systems of the layers.
var formatDisks = []string{"ext4", "xfs", "btrfs"}

// diskPath is the mount point of a file system for layers, the same in the child process of a mode.
func diskPath(fstype string) string { return filepath.Join(harness.RunDir, "disks", fstype) }

// mountFormatDisks makes the file systems, with a folder for each mode, and mounts them until the
// test ends.
func mountFormatDisks(t *testing.T) {
	t.Helper()
	if harness.InChild() {
		return // the parent process has mounted them
	}
	for _, fstype := range formatDisks {
		// Without noatime the comparison would change access times.
		testkit.MountAt(t, fstype, testkit.MakeImage(t, "mkfs."+fstype), diskPath(fstype), "loop,noatime")
		for _, m := range harness.RootModes {
			dir := filepath.Join(diskPath(fstype), string(m))
			harness.Mkdir(t, dir)
			if m == harness.ModeUserns {
				harness.Check(t, os.Chown(dir, harness.PlainUser.UID, harness.PlainUser.GID))
			}
		}
	}
}

// diskFolder makes a folder on a file system for layers. It is removed after the test.
func diskFolder(t *testing.T, e *harness.Env, fstype string) string {
	t.Helper()
	dir, err := os.MkdirTemp(filepath.Join(diskPath(fstype), string(e.Mode)), "cell")
	harness.Check(t, err)
	t.Cleanup(func() { harness.RemoveTree(dir) })
	return dir
}

// otherDisk is a file system for layers other than fstype.
func otherDisk(fstype string) string {
	list := strings.Join(formatDisks, " ") + " " + formatDisks[0]
	_, after, _ := strings.Cut(list, fstype+" ")
	next, _, _ := strings.Cut(after, " ")
	return next
}
