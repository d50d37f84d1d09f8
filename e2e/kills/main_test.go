package kills

import (
	"testing"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

const (
	envKills  = "FUSE_OVERLAY_KILLS"      // kills in each mode
	envWorker = "FUSE_OVERLAY_KILLS_WORK" // the file with the work of a process that TestKills starts

	// someKills are those of a run without envKills.
	someKills = 4
)

func TestMain(m *testing.M) {
	harness.Main(m, harness.Suite{
		Roles:       map[string]func(string) error{envWorker: work},
		LimitFactor: 1 + int(harness.EnvNumber(envKills, someKills)/20),
	})
}
