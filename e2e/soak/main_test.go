package soak

import (
	"testing"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

func TestMain(m *testing.M) {
	harness.Main(m, harness.Suite{Tools: map[string]string{"go": "golang-go"}})
}
