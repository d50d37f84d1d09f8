package differential

import (
	"testing"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

func TestMain(m *testing.M) {
	harness.Main(m, harness.Suite{
		LimitFactor: int(harness.EnvNumber(harness.EnvSeqs, 0) / 100), // make differential SEQS=...
	})
}
