package engines

import (
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// snapshotterSuite is the test suite of the snapshotter's module.
func snapshotterSuite() string { return filepath.Join(harness.RunDir, "bin", "snapshotter.test") }

// buildSnapshotter builds the snapshotter and its test suite.
var buildSnapshotter = sync.OnceValue(func() error {
	if err := snapshotter.build(); err != nil || harness.InChild() {
		return err
	}
	return snapshotter.goRun("test", "-c", "-mod=readonly", "-o", snapshotterSuite(), ".")
})

func needSnapshotter(t *testing.T) {
	t.Helper()
	harness.NeedDaemon(t)
	if err := buildSnapshotter(); err != nil {
		t.Fatal(err)
	}
}

// snapshotterCases are cases that must have run, in the spelling of the suite.
var snapshotterCases = strings.Fields(`Basic DirectoryPermissionOnCommit Chown RemoveDirectoryInLowerLayer Walk Remove Update
	PreareViewFailingtest TransitivityTest StatComitted StatActive LayerFileupdate Rename ViewReadonly MoveFileFromLowerLayer
	RootPermission CloseTwice DeletedFilesInChildSnapshot StatInWalk RemoveIntermediateSnapshot 128LayersMount`)

// All tests of the snapshotter pass. They prepare, view, commit, remove, measure and walk snapshots
// of up to 128 layers, each mounted by the program under test.
func TestSnapshotterSuite(t *testing.T) {
	needSnapshotter(t)
	harness.EachMode(t, harness.PrivateModes, func(t *testing.T, e *harness.Env) {
		harness.NothingLeft(t)
		out, err := harness.RunIn(e.Dir, []string{"TMPDIR=" + e.Dir}, 8*time.Minute, snapshotterSuite(), "-test.v",
			"-test.root")
		if err != nil {
			t.Errorf("the suite: %v", err)
		}
		passed := map[string]bool{}
		for line := range strings.SplitSeq(out, "\n") {
			f := strings.Fields(line)
			if len(f) < 3 || f[0] != "---" {
				continue
			}
			name, _ := strings.CutPrefix(f[2], "TestFUSEOverlayFS/")
			if f[1] != "PASS:" {
				t.Errorf("%s %s", f[1], f[2])
			}
			passed[name] = f[1] == "PASS:"
		}
		for _, name := range snapshotterCases {
			if !passed[name] {
				t.Errorf("%s has not passed", name)
			}
		}
		if t.Failed() {
			t.Log(tail(withoutLongLines(out), 10000))
		}
	})
}

// withoutLongLines shortens lines that name 128 layers.
func withoutLongLines(text string) string {
	lines := strings.SplitAfter(text, "\n")
	return strings.Join(slices.DeleteFunc(lines, func(line string) bool { return len(line) > 2000 }), "")
}
