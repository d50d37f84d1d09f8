package engines

import (
	"testing"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// The actions that a run of all clients has to try.
const (
	actBuild   = "build" // of 12 steps, with the tree of a build on the kernel's overlayfs
	actRun     = "run"
	actExec    = "exec"
	actDiff    = "diff"
	actCommit  = "commit"
	actCopy    = "cp"
	actRemoval = "removal" // of all, without leftovers
	actSwitch  = "switch"  // of a storage from and to another driver
	actMany    = "20 at once"
	actUserns  = "user namespace"
)

// wantedActions are the actions of each client.
var wantedActions = map[string][]string{
	"podman, root":      {actBuild, actRun, actExec, actDiff, actCommit, actCopy, actMany, actRemoval, actSwitch},
	"podman, rootless":  {actBuild, actRun, actExec, actDiff, actCommit, actCopy, actMany, actRemoval, actSwitch},
	"buildah, root":     {actBuild, actRun, actCommit, actCopy, actMany, actRemoval},
	"buildah, rootless": {actBuild, actRun, actCommit, actCopy, actMany, actRemoval},
	"skopeo, root":      {actCopy, actRemoval},
	"skopeo, rootless":  {actCopy, actRemoval},
	"docker, root":      {actBuild, actRun, actExec, actDiff, actCommit, actCopy, actMany, actRemoval, actSwitch},
	"docker, rootless":  {actBuild, actRun, actExec, actDiff, actCommit, actCopy, actMany, actRemoval, actSwitch},
	"docker, BuildKit":  {actBuild, actRun, actRemoval},

	"containerd, root":     {actRun, actExec, actDiff, actCommit, actMany, actRemoval, actUserns},
	"containerd, rootless": {actRun, actExec, actDiff, actCommit, actMany, actRemoval},
	"containerd, CRI":      {actRun, actExec, actMany, actRemoval, actUserns},

	"BuildKit, root":     {actBuild, actRun, actMany, actRemoval},
	"BuildKit, rootless": {actBuild, actRun, actMany, actRemoval},
	"systemd-nspawn":     {actRun, actUserns, "--overlay"},
	"umoci":              {"unpack", "repack"},
}

// tried records actions of a client in this engine, if it mounts by the program.
func (e *engine) tried(t *testing.T, client string, actions ...string) {
	t.Helper()
	if e.name == engineRoot || e.name == engineRootless {
		harness.Tried(t, client+", "+e.name, actions...)
	}
}
