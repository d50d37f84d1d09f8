package engines

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// snapshotterModule is containerd's snapshotter that mounts by the program fuse-overlayfs.
const (
	snapshotterModule  = "github.com/containerd/fuse-overlayfs-snapshotter/v2"
	snapshotterVersion = "v2.1.7"
)

// The two programs of the module.
func snapshotterDaemon() string {
	return filepath.Join(harness.RunDir, "bin", "containerd-fuse-overlayfs-grpc")
}

func snapshotterSuite() string { return filepath.Join(harness.RunDir, "bin", "snapshotter.test") }

// buildSnapshotter builds both programs once a run, from the caches of Go if possible.
var buildSnapshotter = sync.OnceValue(func() error {
	if harness.InChild() {
		return nil // the parent has: here is no network
	}
	install := exec.Command("go", "install", snapshotterModule+"/cmd/containerd-fuse-overlayfs-grpc@"+snapshotterVersion)
	install.Env = append(os.Environ(), "CGO_ENABLED=0", "GOBIN="+filepath.Dir(snapshotterDaemon()))
	if out, err := install.CombinedOutput(); err != nil {
		return fmt.Errorf("go install: %w\n%s", err, out)
	}
	download := exec.Command("go", "mod", "download", "-json", snapshotterModule+"@"+snapshotterVersion)
	out, err := download.Output()
	var module struct{ Dir, Error string }
	if jsonErr := json.Unmarshal(out, &module); jsonErr != nil || err != nil || module.Error != "" {
		return fmt.Errorf("go mod download: %v %v %s", err, jsonErr, module.Error)
	}
	// In the folder of the module, for the versions of its go.mod.
	test := exec.Command("go", "test", "-c", "-mod=readonly", "-o", snapshotterSuite(), ".")
	test.Dir, test.Env = module.Dir, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := test.CombinedOutput(); err != nil {
		return fmt.Errorf("go test -c: %w\n%s", err, out)
	}
	return nil
})

func needSnapshotter(t *testing.T) {
	t.Helper()
	harness.NeedDaemon(t)
	if err := buildSnapshotter(); err != nil {
		t.Fatalf("%s: %v", snapshotterModule, err)
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
