package engines

import (
	"encoding/json"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// layerDirs are the directories of the top layer of an image and of those below it, as podman has
// them in its storage.
type layerDirs struct{ UpperDir, LowerDir string }

// compareDiffs compares fuse-overlay diff of each step of a build with podman diff.
func (e *engine) compareDiffs(t *testing.T, image string) {
	t.Helper()
	steps := 0
	for id := range strings.FieldsSeq(e.podman(t, "history", "--quiet", "--no-trunc", image)) {
		if id == "<missing>" { // a step without a layer
			continue
		}
		var dirs layerDirs
		harness.Check(t, json.Unmarshal([]byte(e.podman(t, "image", "inspect", "--format", "{{json .GraphDriver.Data}}", id)), &dirs))
		if dirs.LowerDir == "" { // the base image
			continue
		}
		steps++
		args := append([]string{harness.Program, "diff", dirs.UpperDir}, strings.Split(dirs.LowerDir, ":")...)
		if e.Rootless() {
			args = append([]string{"podman", "unshare"}, args...)
		}
		wantSameChanges(t, dirs.UpperDir, linesOfPodman(e.podman(t, "diff", id)), linesOfDiff(e.run(t, args...)))
	}
	if steps < 12 {
		t.Errorf("%d steps", steps)
	}
}

// wantSameChanges compares the changes of an upper by both programs. podman is wrong about
// directories alone: it lists those that are in the upper and equal those of the lowers, and leaves
// out the root and those of which only the times have changed.
func wantSameChanges(t *testing.T, upper string, podmans, ours map[string]string) {
	t.Helper()
	isDir := func(p string) bool {
		info, err := os.Lstat(filepath.Join(upper, p))
		return err == nil && info.IsDir()
	}
	for p, kind := range podmans {
		switch mine := ours[p]; {
		case mine == "" && kind == "C" && isDir(p):
		case mine == "" || kindOf[mine[:1]] != kind:
			t.Errorf("%s: podman diff has %q, and fuse-overlay diff %q", p, kind, mine)
		}
	}
	for p, mine := range ours {
		if podmans[p] == "" && (mine != "M times" || !isDir(p)) {
			t.Errorf("%s: podman diff does not have it, and fuse-overlay diff has %q", p, mine)
		}
	}
}

// kindOf are the letters of podman diff for those of fuse-overlay diff.
var kindOf = map[string]string{"A": "A", "H": "A", "M": "C", "R": "A", "D": "D"}

// linesOfPodman returns the kinds of changes by their paths.
func linesOfPodman(text string) map[string]string {
	lines := map[string]string{}
	for line := range strings.Lines(text) {
		kind, p, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		lines[strings.TrimPrefix(p, "/")] = kind
	}
	return lines
}

// linesOfDiff is linesOfPodman for fuse-overlay diff: the kinds have their aspects.
func linesOfDiff(text string) map[string]string {
	lines := map[string]string{}
	for line := range strings.Lines(text) {
		kind, rest, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		p, aspects, _ := strings.Cut(rest, "\t")
		lines[path.Clean(p)] = strings.TrimSpace(kind + " " + aspects)
	}
	return lines
}
