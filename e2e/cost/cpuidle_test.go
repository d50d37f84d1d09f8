package e2e

import (
	"encoding/binary"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// wakeUpFile tells how long the machine's idle CPUs may take to wake up, in microseconds, by what all processes ask for.
const wakeUpFile = "/dev/cpu_dma_latency"

func mayStayAwake(t *testing.T) bool {
	t.Helper()
	f, err := os.Open(wakeUpFile)
	check(t, err)
	defer func() { check(t, f.Close()) }()
	var b [4]byte
	_, err = f.Read(b[:])
	check(t, err)
	return binary.NativeEndian.Uint32(b[:]) == 0
}

// With cpu_idle=poll idle CPUs stay awake while requests come fast, and for no longer; also when the daemon is killed.
func TestCPUsStayAwakeForRequests(t *testing.T) {
	needDaemon(t)
	eachMode(t, allModes, func(t *testing.T, e *env) {
		o := e.overlay(t, "dir d")
		o.opts = []string{"cpu_idle=poll"}
		if unix.Access(wakeUpFile, unix.W_OK) != nil { // for root alone
			out, err := o.tryMount()
			if err == nil || o.isMounted() || !strings.Contains(out, "cpu_idle=poll: "+wakeUpFile) {
				t.Errorf("mounting: %v, %q; want a word of %s", err, out, wakeUpFile)
			}
			return
		}
		o.mount()
		asleep := func(when string) {
			t.Helper()
			if !eventually(5*time.Second, func() bool { return !mayStayAwake(t) }) {
				t.Errorf("%s: idle CPUs stay awake", when)
			}
		}
		work := func() {
			t.Helper()
			i := 0
			if !eventually(5*time.Second, func() bool {
				for range 200 {
					_, _ = os.Lstat(o.path(fmt.Sprint("d/", i)))
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
		o.crash()
		asleep("after the daemon was killed")
	})
}

// With cpu_idle=sleep nothing is asked for.
func TestCPUsAreLeftToSleep(t *testing.T) {
	needDaemon(t)
	eachMode(t, allModes, func(t *testing.T, e *env) {
		o := e.overlay(t, "dir d")
		o.opts = []string{"cpu_idle=sleep"}
		o.mount()
		for _, fd := range openFDs(o.pid) {
			if fd == wakeUpFile {
				t.Errorf("the daemon has %s open", fd)
			}
		}
		o.unmount()
	})
}
