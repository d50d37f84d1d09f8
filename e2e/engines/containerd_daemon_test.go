package engines

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
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
	user      string
	dir       string
	sock      string
	namespace string
	enter     []string // a command that runs another where containerd runs; empty as root
}

// withoutCRI is the part of a configuration that turns the service for Kubernetes off, by its names
// in containerd 1 and 2.
const withoutCRI = `
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime"]
`

func startContainerd(t *testing.T, e *harness.Env, user string) *containerd {
	t.Helper()
	return startContainerdWith(t, e, user, withoutCRI)
}

// startContainerdWith starts containerd with a part of its configuration. Containerd 2 translates
// version 2.
func startContainerdWith(t *testing.T, e *harness.Env, user, settings string) *containerd {
	t.Helper()
	dir, err := os.MkdirTemp(e.Dir, "containerd-")
	harness.Check(t, err)
	harness.Check(t, os.Chmod(dir, 0o755)) // containers in a user namespace pass through
	// Paths of sockets have at most 107 bytes. /run belongs to the test.
	run := "/run"
	if user == engineRootless {
		run = runtimeDir
	}
	proxy := run + "/snapshotter.sock"
	c := &containerd{t: t, e: e, user: user, dir: dir, sock: run + "/containerd.sock", namespace: "default"}
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
	command := []string{"containerd", "--log-level", "warn", "--config", config, "--root", c.dir + "/root", "--state",
		c.dir + "/state", "--address", c.sock}
	answers := func() error { _, err := c.try("version"); return err }
	if user == engineRootless {
		command = slices.Concat(rootlessCommand(t, dir), rootlesskit, command)
		startService(t, e, answers, command[0], command[1:]...)
		c.enter = append(enterNamespaces(t, "--user", "--mount", "--net"), "env", "TMPDIR="+dir)
	}
	snapshotter := append(slices.Clone(c.enter), program("containerd-fuse-overlayfs-grpc"), proxy, c.dir+"/snapshots")
	startService(t, e, func() error { _, err := os.Stat(proxy); return err }, snapshotter[0], snapshotter[1:]...)
	if user == engineRoot {
		startService(t, e, answers, command[0], command[1:]...)
	}
	return c
}

// rootlesskit makes the namespaces for containerd as the script containerd-rootless.sh of nerdctl
// does.
var rootlesskit = []string{"rootlesskit", "--state-dir=" + rootlesskitState, "--net=slirp4netns", "--disable-host-loopback",
	"--copy-up=/etc", "--copy-up=/run", "--propagation=rslave"}

func (c *containerd) try(args ...string) (string, error) {
	return c.inside(append([]string{"ctr"}, args...)...)
}

// inside runs a command where containerd mounts.
func (c *containerd) inside(command ...string) (string, error) {
	command = slices.Concat(c.enter, command)
	return harness.RunIn(c.dir, []string{"CONTAINERD_ADDRESS=" + c.sock, "CONTAINERD_NAMESPACE=" + c.namespace},
		time.Minute, command[0], command[1:]...)
}

// shell runs a script where containerd mounts, and ends the test if it fails.
func (c *containerd) shell(script string) string {
	c.t.Helper()
	out, err := c.inside("bash", "-euc", script)
	if err != nil {
		c.t.Fatalf("%s: %v\n%s", script, err, out)
	}
	return out
}

func (c *containerd) ctr(args ...string) string {
	c.t.Helper()
	out, err := c.try(args...)
	if err != nil {
		c.t.Fatalf("ctr %q: %v\n%s", args, err, out)
	}
	return out
}
