package faults

import (
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// threadsOf is how many threads a process has.
func threadsOf(t *testing.T, pid int) int {
	t.Helper()
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	harness.Check(t, err)
	return len(entries)
}

// forbidThreads returns a function that lets the daemon of an overlay make more threads, or not:
// by pids.max of a cgroup for root, to which RLIMIT_NPROC does not apply. Call it before Mount.
func forbidThreads(t *testing.T, e *harness.Env, o *harness.Overlay) (allow func(more bool)) {
	t.Helper()
	if e.Mode == harness.ModeRoot {
		c := newCgroup(t, "pids")
		c.hold(o)
		return func(more bool) {
			value := "max"
			if !more {
				value = fmt.Sprint(c.number("pids.current", "pids.current", "") + 2)
			}
			c.set("pids.max", "pids.max", value)
		}
	}
	return func(more bool) {
		var limit unix.Rlimit
		harness.Check(t, unix.Prlimit(o.PID, unix.RLIMIT_NPROC, nil, &limit))
		limit.Cur = limit.Max
		if !more {
			limit.Cur = 1
		}
		harness.Check(t, unix.Prlimit(o.PID, unix.RLIMIT_NPROC, &limit, nil))
	}
}

// Without threads, requests wait until others are answered, and the daemon lives. When there are
// threads again, processes that do not use the stalled layer go on, and all do when that
// answers, with or without threads.
func TestStuckLayerWithoutThreads(t *testing.T) {
	harness.NeedDaemon(t)
	for _, again := range []bool{true, false} {
		name, modes := "threads come back", harness.AllModes
		if !again {
			name, modes = "the layer answers", harness.OnlyRoot
		}
		t.Run(name, func(t *testing.T) {
			harness.EachMode(t, modes, func(t *testing.T, e *harness.Env) {
				o, layer, uses := stuckOverlay(t, e)
				allow := forbidThreads(t, e, o)
				o.Mount()
				harness.Shell(t, o.Point, "ls -l silent >/dev/null")
				allow(false)
				before := threadsOf(t, o.PID)
				layer.stop()
				users := startUses(t, o, uses)
				if !harness.Alive(o.PID) {
					t.Fatal("the daemon died")
				}
				if now := threadsOf(t, o.PID); now > before+2 {
					t.Errorf("%d threads, and %d before there were no more", now, before)
				}
				if again {
					allow(true)
					stuckWork(t, o.Point, 1)
				}
				layer.answer()
				waitAll(t, "the layer answers again", users)
				stuckWork(t, o.Point, 2)
				allow(true)
				o.Remount()
				harness.WantText(t, o.Path("silent/f0"), "text")
			})
		})
	}
}
