package faults

import (
	"testing"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

func TestMain(m *testing.M) {
	harness.Main(m, harness.Suite{
		Roles: map[string]func(string) error{envBare: serveBare, envStall: serveStalling, envDisk: serveDisk},
		Tools: map[string]string{"e2fsck": "e2fsprogs", "xfs_repair": "xfsprogs"},
	})
}
