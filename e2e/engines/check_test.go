package engines

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// checkLayers runs fuse-overlay check on each layer of a storage that is not in use, with the
// layers below it. Nothing may be found.
func (s *storage) checkLayers(t *testing.T) {
	t.Helper()
	overlay := filepath.Join(s.dir, "graph", "overlay")
	diffs, err := filepath.Glob(overlay + "/*/diff")
	harness.Check(t, err)
	if len(diffs) == 0 && len(s.images) > 0 {
		t.Error("the storage has no layers")
	}
	for _, diff := range diffs {
		args := []string{"check"}
		layer := filepath.Dir(diff)
		if _, err := os.Stat(layer + "/work"); err == nil {
			args = append(args, "--workdir", layer+"/work")
		}
		args = append(args, diff)
		if lowers, err := os.ReadFile(layer + "/lower"); err == nil {
			for lower := range strings.SplitSeq(strings.TrimSpace(string(lowers)), ":") {
				args = append(args, filepath.Join(overlay, lower))
			}
		}
		if out, err := harness.Run(harness.Program, args...); err != nil || out != "" {
			t.Errorf("fuse-overlay %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
}
