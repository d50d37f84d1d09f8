package attacks

import (
	"testing"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

func TestMain(m *testing.M) {
	harness.Main(m, harness.Suite{Roles: map[string]func(string) error{envTracer: trace}, LimitFactor: factor()})
}

// attacker is a user that does not mount and owns layers in the modes of root.
const attacker = 1000

// factor multiplies the number of attempts of the tests. 100 is for runs of hours.
func factor() int { return int(harness.EnvNumber("FUSE_OVERLAY_ATTACKS", 1)) }
