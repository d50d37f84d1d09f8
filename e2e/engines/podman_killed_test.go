package engines

import (
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// The daemon of a container's root is killed. The next command of podman for the container succeeds
// at once, in spite of the dead mount.
func TestPodmanAfterAKilledDaemon(t *testing.T) {
	eachEngine(t, func(t *testing.T, e *engine) {
		e.need(t, imageBusybox)
		id := e.start(t, imageBusybox, "echo more >>/data/changed; sleep 1000")
		if !harness.Eventually(10*time.Second, func() bool {
			return strings.Contains(e.exec(t, id, "cat", "/data/changed"),
				"more")
		}) {
			t.Fatal("the container has not begun")
		}
		stop := func() {
			_, _ = e.Run(engineLimit, "podman", "kill", id) // it may have ended without its root
			e.podman(t, "wait", id)
		}
		for what, next := range map[string]func(){
			"diff": func() {
				if out := e.podman(t, "diff", id); !strings.Contains(out, "C /data/changed") {
					t.Errorf("podman diff: %s", out)
				}
			},
			"start": func() {
				stop()
				e.podman(t, "start", id)
				harness.Equal(t, "after the start", strings.HasPrefix(e.exec(t, id, "cat", "/data/changed"), "changed\nmore\n"),
					true)
			},
		} {
			pids := harness.DaemonsWith(e.Path())
			if len(pids) != 1 {
				t.Fatalf("before %s: daemons %v, want one", what, pids)
			}
			harness.Kill(pids[0], syscall.SIGKILL)
			harness.WaitGone(pids[0], 5*time.Second)
			next()
			stop()
			e.podman(t, "start", id) // with a root that lives, whatever came before
		}
	})
}
