package cost

import (
	"encoding/binary"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// wakeUpFile holds the wake-up latency of idle CPUs in microseconds: the least of all requests of
// processes.
const wakeUpFile = "/dev/cpu_dma_latency"

func mayStayAwake(t *testing.T) bool {
	t.Helper()
	f, err := os.Open(wakeUpFile)
	harness.Check(t, err)
	defer func() { harness.Check(t, f.Close()) }()
	var b [4]byte
	_, err = f.Read(b[:])
	harness.Check(t, err)
	return binary.NativeEndian.Uint32(b[:]) == 0
}

// With cpu_idle=poll idle CPUs stay awake while requests come fast, and no longer, even if the
// daemon is killed.
func TestCPUsStayAwakeForRequests(t *testing.T) {
	harness.Raced(t)
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		o := e.Overlay(t, "dir d")
		o.Opts = []string{"cpu_idle=poll"}
		if unix.Access(wakeUpFile, unix.W_OK) != nil { // for root alone
			out, err := o.TryMount()
			if err == nil || o.IsMounted() || !strings.Contains(out, "cpu_idle=poll: "+wakeUpFile) {
				t.Errorf("mounting: %v, %q; want a word of %s", err, out, wakeUpFile)
			}
			return
		}
		o.Mount()
		asleep := func(when string) {
			t.Helper()
			if !harness.Eventually(5*time.Second, func() bool { return !mayStayAwake(t) }) {
				t.Errorf("%s: idle CPUs stay awake", when)
			}
		}
		work := func() {
			t.Helper()
			i := 0
			if !harness.Eventually(5*time.Second, func() bool {
				for range 200 {
					_, _ = os.Lstat(o.Path(fmt.Sprint("d/", i)))
					i++
				}
				return mayStayAwake(t)
			}) {
				t.Errorf("idle CPUs sleep after %d requests", i)
			}
		}
		asleep("at first")
		work()
		asleep("after the work")
		work()
		o.Crash()
		asleep("after the daemon was killed")
	})
}

// With cpu_idle=sleep the daemon requests no latency.
func TestCPUsAreLeftToSleep(t *testing.T) {
	harness.Raced(t)
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		o := e.Overlay(t, "dir d")
		o.Opts = []string{"cpu_idle=sleep"}
		o.Mount()
		for _, fd := range harness.OpenFDs(o.PID) {
			if fd == wakeUpFile {
				t.Errorf("the daemon has %s open", fd)
			}
		}
		o.Unmount()
	})
}
