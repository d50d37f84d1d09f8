package engines

import (
	"errors"
	"testing"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

func TestMain(m *testing.M) {
	harness.Main(m, harness.Suite{Close: func() error {
		return errors.Join(closeEngines(), harness.PrintTried(wantedActions))
	}})
}
