package engines

import (
	"errors"
	"testing"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// tools are the programs of engines, and the Debian package of each.
var tools = map[string]string{
	"/usr/bin/docker": "docker.io", "buildah": "buildah", "conmon": "conmon", "containerd": "containerd", "crun": "crun",
	"ctr": "containerd", "dockerd": "docker.io", dockerdRootless: "docker.io", "podman": "podman",
	"rootlesskit": "rootlesskit", "runc": "runc", "skopeo": "skopeo", "slirp4netns": "slirp4netns",
}

func TestMain(m *testing.M) {
	// TestDocker builds with two builders on two drivers: a busy machine needs longer than other
	// tests.
	harness.Main(m, harness.Suite{Tools: tools, LimitFactor: 2, Close: func() error {
		if !apptainerMissing() {
			wantedActions["apptainer, rootless"] = []string{actRun, actMany, actRemoval}
		}
		return errors.Join(closeEngines(), harness.PrintTried(wantedActions))
	}})
}
