package engines

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// module is a Go module with programs that the tests run, at a pinned version.
type module struct {
	path, version string
	programs      []string // packages
	once          sync.Once
	err           error
}

var (
	// snapshotter is containerd's snapshotter that mounts by the program fuse-overlayfs.
	snapshotter = &module{path: "github.com/containerd/fuse-overlayfs-snapshotter/v2", version: "v2.1.7",
		programs: []string{"./cmd/containerd-fuse-overlayfs-grpc"}}
	buildkit = &module{path: "github.com/moby/buildkit", version: "v0.34.2",
		programs: []string{"./cmd/buildkitd", "./cmd/buildctl"}}
	criTools = &module{path: "sigs.k8s.io/cri-tools", version: "v1.37.0", programs: []string{"./cmd/crictl"}}
)

// envClients is a variable of the environment. If it is set, the tests of clients run that need
// minutes to build, or packages that only make test-clients installs.
const envClients = "FUSE_OVERLAY_CLIENTS"

// need builds the programs of the module once a run, from the caches of Go if possible.
func (m *module) need(t *testing.T) {
	t.Helper()
	harness.NeedDaemon(t)
	if err := m.build(); err != nil {
		t.Fatal(err)
	}
}

func (m *module) build() error {
	m.once.Do(func() {
		if harness.InChild() {
			return // the parent has: here is no network
		}
		args := []string{"build", "-mod=readonly", "-o", filepath.Join(harness.RunDir, "bin") + "/"}
		m.err = m.goRun(append(args, m.programs...)...)
	})
	return m.err
}

// program is the path of a program of a module.
func program(name string) string { return filepath.Join(harness.RunDir, "bin", name) }

// goRun runs a command of Go in the folder of the module, for the versions of its go.mod.
func (m *module) goRun(args ...string) error {
	out, err := exec.Command("go", "mod", "download", "-json", m.path+"@"+m.version).Output()
	var got struct{ Dir, Error string }
	if jsonErr := json.Unmarshal(out, &got); jsonErr != nil || err != nil || got.Error != "" {
		return fmt.Errorf("go mod download %s: %v %v %s", m.path, err, jsonErr, got.Error)
	}
	cmd := exec.Command("go", args...)
	cmd.Dir, cmd.Env = got.Dir, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: go %s: %w\n%s", m.path, args[0], err, out)
	}
	return nil
}

// needClients skips a test whose client only make test-clients has.
func needClients(t *testing.T) {
	t.Helper()
	harness.NeedDaemon(t)
	if !withClients() {
		t.Skip("a part of make test-clients")
	}
}

// withClients is whether this is a run of make test-clients.
func withClients() bool { return os.Getenv(envClients) != "" }
