package supervise

import (
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

const (
	envKills = "FUSE_OVERLAY_TAKEOVERS" // kills in each mode
	// someKills are those of a run without envKills.
	someKills = 20
)

func kills() int { return int(harness.EnvNumber(envKills, someKills)) }

func TestMain(m *testing.M) {
	harness.Main(m, harness.Suite{LimitFactor: 1 + kills()/50})
}

// modes are the kinds of mounts.
var modes = []harness.Mode{harness.ModeRoot, harness.ModeUserns, harness.ModeFusermount}

// mounted mounts an overlay with the option. The test waits for the end of all of its processes.
func mounted(t *testing.T, e *harness.Env, lowers ...string) *harness.Overlay {
	t.Helper()
	if harness.Oracle {
		t.Skip("the kernel's overlayfs has no daemon")
	}
	o := e.Overlay(t, lowers...)
	o.Opts = append(slices.Clone(o.Opts), "supervise", "sandbox=off")
	t.Cleanup(func() {
		if !harness.Eventually(10*time.Second, func() bool {
			return len(harness.DaemonsOf(o.Point))+len(harness.SupervisorsOf(o.Point)) == 0
		}) {
			t.Errorf("left after the unmount: %v, supervisors %v", harness.DaemonsOf(o.Point), harness.SupervisorsOf(o.Point))
		}
	})
	mount(t, o)
	return o
}

// mount mounts an overlay with the option. A daemon with the race detector is linked dynamically,
// and cannot be started again in its empty root.
func mount(t *testing.T, o *harness.Overlay) {
	t.Helper()
	out, err := o.TryMount()
	switch {
	case err != nil && strings.Contains(out, "linked dynamically"):
		t.Skip("this program is linked dynamically")
	case err != nil:
		t.Fatalf("mounting: %v\n%s", err, out)
	}
}

// daemonOf waits for the daemon of a mount that is watched by a supervisor.
func daemonOf(t *testing.T, o *harness.Overlay) (pid int) {
	t.Helper()
	if !harness.Eventually(10*time.Second, func() bool {
		daemons, supervisors := harness.DaemonsOf(o.Point), harness.SupervisorsOf(o.Point)
		if len(daemons) != 1 || len(supervisors) != 1 {
			return false
		}
		pid = daemons[0]
		return true
	}) {
		t.Fatalf("daemons %v, supervisors %v: want one of each\n%s", harness.DaemonsOf(o.Point),
			harness.SupervisorsOf(o.Point), logOf(o))
	}
	return pid
}

func logOf(o *harness.Overlay) []byte {
	text, _ := os.ReadFile(o.Log)
	return text
}

// kill kills the daemon of a mount, and waits until another one serves it.
func kill(t *testing.T, o *harness.Overlay) {
	t.Helper()
	pid := daemonOf(t, o)
	old := harness.SupervisorsOf(o.Point)
	harness.Kill(pid, syscall.SIGKILL)
	if !harness.WaitGone(pid, 5*time.Second) {
		t.Fatalf("the daemon %d is alive after SIGKILL", pid)
	}
	// The old supervisor ends when the new daemon serves.
	if !harness.Eventually(10*time.Second, func() bool {
		return !slices.ContainsFunc(old, harness.Alive)
	}) {
		t.Fatalf("the supervisor %v is alive: no other daemon serves\n%s", old, logOf(o))
	}
	o.PID = daemonOf(t, o)
}

// killer kills the daemon n times while a test goes on.
type killer struct {
	wg   sync.WaitGroup
	done chan struct{}
}

func startKiller(t *testing.T, o *harness.Overlay, n int) *killer {
	k := &killer{done: make(chan struct{})}
	k.wg.Go(func() {
		defer close(k.done)
		for range n {
			time.Sleep(time.Duration(50+rand.IntN(200)) * time.Millisecond)
			pids := harness.DaemonsOf(o.Point)
			if len(pids) != 1 || len(harness.SupervisorsOf(o.Point)) != 1 {
				continue
			}
			harness.Kill(pids[0], syscall.SIGKILL)
		}
	})
	t.Cleanup(func() {
		k.wg.Wait()
		o.PID = 0
	})
	return k
}

// running reports whether kills are still to come.
func (k *killer) running() bool {
	select {
	case <-k.done:
		return false
	default:
		return true
	}
}
