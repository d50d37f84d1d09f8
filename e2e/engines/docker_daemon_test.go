package engines

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// docker is a running dockerd of a test.
type docker struct {
	t    *testing.T
	user string
	dir  string
	host string // the address of its socket
}

// dockerdRootless is the script of docker that starts the daemon of a plain user.
const dockerdRootless = "/usr/share/docker.io/contrib/dockerd-rootless.sh"

func startDocker(t *testing.T, e *harness.Env, user, driver string, options ...string) *docker {
	t.Helper()
	dir, err := os.MkdirTemp(e.Dir, driver+"-")
	harness.Check(t, err)
	harness.Check(t, os.Chmod(dir, 0o755)) // containers in a user namespace pass through
	return startDockerIn(t, e, user, dir, driver, options...)
}

// startDockerIn is startDocker with a folder for the data, which may have been used before. One
// daemon runs at a time: paths of sockets must be short, and /run is the test's own.
func startDockerIn(t *testing.T, e *harness.Env, user, dir, driver string, options ...string) *docker {
	t.Helper()
	d := &docker{t: t, user: user, dir: dir, host: "unix:///run/docker.sock"}
	command := []string{"dockerd", "--host", d.host, "--cgroup-parent", harness.CgroupName(), "--exec-root", "/run/docker",
		"--pidfile", "/run/docker.pid"}
	if user == engineRootless {
		d.host = "unix://" + runtimeDir + "/docker.sock"
		command = append(rootlessCommand(t, dir, "DOCKERD_ROOTLESS_ROOTLESSKIT_FLAGS=--state-dir="+rootlesskitState),
			dockerdRootless)
	}
	command = slices.Concat(command, []string{"--storage-driver", driver, "--iptables=false", "--ip-forward=false",
		"--bridge=none", "--data-root", d.dir + "/data"}, options)
	startService(t, e, func() error { _, err := d.try("version"); return err }, command[0], command[1:]...)
	return d
}

func (d *docker) try(args ...string) (string, error) {
	return harness.RunIn(d.dir, []string{"DOCKER_HOST=" + d.host}, 3*time.Minute, "docker", args...)
}

func (d *docker) docker(args ...string) string {
	d.t.Helper()
	out, err := d.try(args...)
	if err != nil {
		d.t.Fatalf("docker %q: %v\n%s", args, err, out)
	}
	return out
}

// The builders of docker, as values of DOCKER_BUILDKIT.
const (
	olderBuilder = "0"
	buildKit     = "1" // the default since docker 23
)

// build builds an image without a network.
func (d *docker) build(builder, image, context string) string {
	d.t.Helper()
	out, err := harness.RunIn(d.dir, []string{"DOCKER_BUILDKIT=" + builder, "BUILDKIT_PROGRESS=plain",
		"DOCKER_HOST=" + d.host}, 5*time.Minute,
		"docker", "build", "--network", "none", "--no-cache", "-t", image, context)
	if err != nil {
		d.t.Fatalf("docker build of %s: %v\n%s", image, err, out)
	}
	return out
}

// run runs a script in a new container, which is not removed.
func (d *docker) run(name, image, script string) string {
	d.t.Helper()
	return d.docker("run", "--network", "none", "--name", name, image, "/bin/sh", "-ec", script)
}

// export unpacks the whole tree of a container that does not run. docker 26 leaves the mount that
// it makes for that, with every driver (moby issue 48516). Such a container cannot start again.
func (d *docker) export(container string) string {
	d.t.Helper()
	to := filepath.Join(d.dir, "export-"+container)
	harness.Mkdir(d.t, to)
	harness.Shell(d.t, to, "set -o pipefail; docker --host "+d.host+" export "+container+
		" | tar -x --xattrs --xattrs-include='*' --numeric-owner")
	unmount := []string{"sh", "-c", `grep -o " $0/data/[^ ]*/merged " /proc/self/mounts | xargs -r umount`, d.dir}
	if d.user == engineRootless {
		unmount = append(enterNamespaces(d.t, "--mount"), unmount...)
	}
	if out, err := harness.Run(unmount[0], unmount[1:]...); err != nil {
		d.t.Errorf("%q: %v\n%s", unmount, err, out)
	}
	return to
}

// data unpacks the folder /data of a container.
func (d *docker) data(container string) string {
	d.t.Helper()
	to := filepath.Join(d.dir, "data-"+container)
	harness.Mkdir(d.t, to)
	harness.Shell(d.t, to, "set -o pipefail; docker --host "+d.host+" cp "+container+":/data - | tar -x --numeric-owner")
	return to
}

// importTree makes an image of a folder.
func (d *docker) importTree(dir, image string) {
	d.t.Helper()
	harness.Shell(d.t, d.dir, "set -o pipefail; tar --numeric-owner -C "+dir+" -c . | docker --host "+d.host+
		" import - "+image)
}
