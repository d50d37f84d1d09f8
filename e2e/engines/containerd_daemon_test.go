package engines

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

const (
	ourSnapshotter    = "fuse-overlayfs"
	kernelSnapshotter = "overlayfs" // containerd's own, to compare with
	containerdImage   = "test.local/e2e:1"
)

// containerd is a running containerd of a test, with the snapshotter that uses the program.
type containerd struct {
	t         *testing.T
	e         *harness.Env
	dir       string
	sock      string
	namespace string
}

// withoutCRI is the part of a configuration that turns the service for Kubernetes off, by its names
// in containerd 1 and 2.
const withoutCRI = `
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime"]
`

func startContainerd(t *testing.T, e *harness.Env) *containerd {
	t.Helper()
	return startContainerdWith(t, e, withoutCRI)
}

// startContainerdWith starts containerd with a part of its configuration. Containerd 2 translates
// version 2.
func startContainerdWith(t *testing.T, e *harness.Env, settings string) *containerd {
	t.Helper()
	dir, err := os.MkdirTemp(e.Dir, "containerd-")
	harness.Check(t, err)
	harness.Check(t, os.Chmod(dir, 0o755)) // containers in a user namespace pass through
	// Paths of sockets have at most 107 bytes. /run belongs to the test.
	c := &containerd{t: t, e: e, dir: dir, sock: "/run/containerd.sock", namespace: "default"}
	const proxy = "/run/snapshotter.sock"
	startService(t, e, func() error { _, err := os.Stat(proxy); return err },
		program("containerd-fuse-overlayfs-grpc"), proxy, filepath.Join(c.dir, "snapshots"))
	config := filepath.Join(c.dir, "config.toml")
	harness.Write(t, config, fmt.Sprintf(`
version = 2
temp = %q
%s
# The collection at the start would take views, which ctr does not protect.
[plugins."io.containerd.gc.v1.scheduler"]
  startup_delay = "1h"
[plugins."io.containerd.internal.v1.opt"]
  path = %q
[proxy_plugins.%s]
  type = "snapshot"
  address = %q
  capabilities = ["remap-ids"]
[[plugins."io.containerd.transfer.v1.local".unpack_config]]
  platform = "linux"
  snapshotter = %q
[[plugins."io.containerd.transfer.v1.local".unpack_config]]
  platform = "linux"
  snapshotter = %q
`, c.dir+"/tmp", settings, c.dir+"/opt", ourSnapshotter, proxy, ourSnapshotter, kernelSnapshotter))
	startService(t, e, func() error { _, err := c.try("version"); return err },
		"containerd", "--log-level", "warn", "--config", config, "--root", c.dir+"/root", "--state", c.dir+"/state",
		"--address", c.sock)
	return c
}

func (c *containerd) try(args ...string) (string, error) {
	return harness.RunIn(c.dir, []string{"CONTAINERD_ADDRESS=" + c.sock, "CONTAINERD_NAMESPACE=" + c.namespace},
		time.Minute, "ctr", args...)
}

func (c *containerd) ctr(args ...string) string {
	c.t.Helper()
	out, err := c.try(args...)
	if err != nil {
		c.t.Fatalf("ctr %q: %v\n%s", args, err, out)
	}
	return out
}
