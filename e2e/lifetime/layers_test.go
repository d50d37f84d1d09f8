package lifetime

import (
	"os"
	"testing"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// listed is the paths of all that lies below a folder, one a line.
func listed(t *testing.T, dir string) string {
	t.Helper()
	return harness.Shell(t, dir, `find . -mindepth 1 -printf '%P\n' | sort`)
}

// wantEmpty fails the test if a directory has entries.
func wantEmpty(t *testing.T, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	harness.Check(t, err)
	if len(entries) > 0 {
		t.Errorf("%s holds %v", dir, entries)
	}
}
