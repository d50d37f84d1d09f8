package sys

import (
	"testing"

	"github.com/fuse-overlay/fuse-overlay/internal/testkit"
)

// What was made since a directory was opened is listed, the first time too: btrfs would leave it
// out.
func TestListOfWhatCameAfterOpening(t *testing.T) {
	for _, fstype := range []string{"ext4", "xfs", "btrfs"} {
		t.Run(fstype, func(t *testing.T) {
			d := openPlain(t, testkit.MountImage(t, fstype, ""))
			must(t, d.Mkdir("later", 0o755))
			found := false
			must(t, d.List(func(e Dirent) error { found = found || e.Name == "later"; return nil }))
			if !found {
				t.Error("not listed")
			}
		})
	}
}
