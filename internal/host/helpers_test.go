package host

import (
	"testing"

	"github.com/fuse-overlay/fuse-overlay/internal/testkit"
)

func TestMain(m *testing.M) { testkit.Main(m) }

var must, want = testkit.Must, testkit.WantError
