package faults

import (
	"bytes"
	"os"
	"testing"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// The space of a removed file can be used at once, although its inode is freed by another thread.
func TestSpaceOfRemovedFiles(t *testing.T) {
	harness.EachMode(t, harness.RootModes, func(t *testing.T, e *harness.Env) {
		for _, opt := range []string{"writeback=0", "writeback=1"} {
			o := harness.NewEnv(t, e.Mode).Overlay(t, "")
			onSmallUpper(t, o, "1m")
			if !harness.Oracle {
				o.Opts = []string{opt}
			}
			o.Mount()
			data := bytes.Repeat([]byte("x"), 700<<10)
			for range 50 {
				harness.Check(t, os.WriteFile(o.Path("f"), data, 0o644))
				harness.Check(t, os.Remove(o.Path("f")))
			}
		}
	})
}
