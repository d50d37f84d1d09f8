package engines

import (
	"strings"
	"testing"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// buildah runs a working container, copies into it, mounts it for programs outside, and commits it.
func TestBuildahSteps(t *testing.T) {
	eachEngine(t, func(t *testing.T, e *engine) {
		e.tried(t, "buildah", actRun, actCommit, actCopy)
		e.need(t, imageBusybox)
		dir := e.folder(t)
		harness.Write(t, dir+"/f", "copied\n")
		e.own(t, dir+"/f")
		working := strings.TrimSpace(e.run(t, "buildah", "from", imageBusybox))
		e.run(t, "buildah", "run", "--network=none", working, "sh", "-euc",
			"cd /data; rm removed; mv dir dir2; echo run >>changed; chown 5:6 kept")
		e.run(t, "buildah", "copy", "--quiet", "--chown=7:8", working, dir+"/f", "/data/copied")
		e.run(t, "buildah", "config", "--cmd", "cat /data/changed /data/copied", working)

		// The mount is a folder for every program of the same user namespace.
		script := `m=$(buildah mount $0); cd $m/data; cat changed copied; echo outside >>changed; rm -r tree; stat -c '%u:%g' kept copied; cd /; buildah umount $0 >/dev/null`
		args := []string{"bash", "-euc", script, working}
		if e.Rootless() {
			args = append([]string{"buildah", "unshare"}, args...)
		}
		harness.Equal(t, "in the mount", e.run(t, args...), "changed\nrun\ncopied\n5:6\n7:8\n")

		e.run(t, "buildah", "commit", "--quiet", "--rm", working, "localhost/steps")
		e.removeImageLater(t, "localhost/steps")
		id, out := e.runToEnd(t, "localhost/steps")
		e.podman(t, "rm", id)
		harness.Equal(t, "a container of it", out, "changed\nrun\noutside\ncopied\n")
		out = e.inContainer(t, "localhost/steps", "cd /data; ls; cat dir2/sub/deep; stat -c '%u:%g' kept copied")
		harness.Equal(t, "its tree", out, "appended\nchanged\ncopied\ndir2\nfifo\nkept\nowned\nrenamed\ndeep\n5:6\n7:8\n")
	})
}
