package io

import (
	"testing"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

func TestMain(m *testing.M) {
	harness.Main(m, harness.Suite{
		Roles:       map[string]func(string) error{envFsx: serveFsx},
		LimitFactor: int(harness.EnvNumber(envFsxOps, fsxOps) / fsxOps), // make fsx FSX_OPS=...
	})
}
