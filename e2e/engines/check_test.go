package engines

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// checkLayers checks the storage of podman.
func (s *storage) checkLayers(t *testing.T) {
	t.Helper()
	checkStorage(t, filepath.Join(s.dir, "graph", "overlay"), len(s.images) > 0)
}

// checkStorage runs fuse-overlay check on the layers of a storage of podman or docker that is not
// in use. Nothing may be found. dir is the folder of a driver of overlays. Each layer that is below
// another one is checked as an upper alone, and in the stack of the topmost one, as a lower.
func checkStorage(t *testing.T, dir string, hasLayers bool) {
	t.Helper()
	diffs, err := filepath.Glob(dir + "/*/diff")
	harness.Check(t, err)
	if len(diffs) == 0 && hasLayers {
		t.Errorf("the storage %s has no layers", dir)
	}
	stacks := map[string][]string{}
	isLower := map[string]bool{}
	for _, diff := range diffs {
		stacks[diff] = []string{diff}
		lowers, err := os.ReadFile(filepath.Dir(diff) + "/lower")
		if err != nil {
			continue // the lowest
		}
		for lower := range strings.SplitSeq(strings.TrimSpace(string(lowers)), ":") {
			path, err := filepath.EvalSymlinks(filepath.Join(dir, lower))
			harness.Check(t, err)
			isLower[path] = true
			stacks[diff] = append(stacks[diff], path)
		}
	}
	for diff, layers := range stacks {
		if isLower[diff] {
			layers = layers[:1]
		}
		wantSound(t, layers)
	}
}

// checkSnapshot is checkStorage for a snapshot of containerd.
func (c *containerd) checkSnapshot(snapshotter, key string) {
	c.t.Helper()
	line := c.ctr("snapshots", "--snapshotter", snapshotter, "mounts", c.dir, key)
	var layers []string
	for _, option := range []string{"upperdir=", "lowerdir="} {
		_, dirs, found := strings.Cut(line, option)
		if !found {
			c.t.Fatalf("no %s in %s", option, line)
		}
		dirs, _, _ = strings.Cut(strings.Fields(dirs)[0], ",")
		layers = append(layers, strings.Split(dirs, ":")...)
	}
	if len(layers) < 3 {
		c.t.Fatalf("the layers of %s are %q", key, layers)
	}
	wantSound(c.t, layers)
	for _, layer := range layers[1:] {
		wantSound(c.t, []string{layer})
	}
}

// wantSound fails the test if fuse-overlay check finds anything in layers, the topmost first, or in
// the work directory beside the first one.
func wantSound(t *testing.T, layers []string) {
	t.Helper()
	args := []string{"check"}
	work := filepath.Dir(layers[0]) + "/work"
	if _, err := os.Stat(work); err == nil {
		args = append(args, "--workdir", work)
	}
	args = append(args, layers...)
	if out, err := harness.Run(harness.Program, args...); err != nil || out != "" {
		t.Errorf("fuse-overlay %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}
