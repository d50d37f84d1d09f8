package harness

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

// leakLimit is the time that a process may take to end after the test that has started it.
const leakLimit = 5 * time.Second

// leaks returns the mounts and daemons that outlive the tests, and ends them.
func leaks() error {
	var errs []error
	for _, m := range mountsBelow(RunDir) {
		errs = append(errs, fmt.Errorf("mount %s (%s)", m.Point, m.Kind))
		_ = syscall.Unmount(m.Point, syscall.MNT_DETACH)
	}
	Eventually(leakLimit, func() bool { return len(allOf(Program)) == 0 })
	for _, pid := range allOf(Program) {
		errs = append(errs, fmt.Errorf("process %d: %s", pid, strings.Join(Cmdline(pid), " ")))
		Kill(pid, syscall.SIGKILL)
	}
	return errors.Join(errs...)
}

// RemoveTree removes a folder of the run, but not through a mount that is still there.
func RemoveTree(dir string) {
	if left := mountsBelow(dir); len(left) > 0 {
		fmt.Fprintf(os.Stderr, "e2e: %s is not removed: %s is still mounted\n", dir, left[0].Point)
		return
	}
	if err := os.RemoveAll(dir); err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
	}
}

// WantNothingRuns waits for the end of all processes that name a folder in their arguments. It
// finds processes in other mount namespaces too, where their executables have other paths.
func WantNothingRuns(t *testing.T, dir string) {
	t.Helper()
	named := func() []int {
		return processes(func(pid int) bool { return strings.Contains(strings.Join(Cmdline(pid), " "), dir+"/") })
	}
	if Eventually(leakLimit, func() bool { return len(named()) == 0 }) {
		return
	}
	for _, pid := range named() {
		t.Errorf("left behind: %d %s", pid, strings.Join(Cmdline(pid), " "))
		Kill(pid, syscall.SIGKILL)
	}
}

// NothingLeft makes the end of a test in ModePrivate look for all that its client has left, and end
// it. Call it first, so that it runs after all other cleanups.
func NothingLeft(t *testing.T) {
	t.Helper()
	before := processTable()
	t.Cleanup(func() {
		left := map[int]string{}
		Eventually(leakLimit, func() bool {
			left = processTable()
			for pid := range before {
				delete(left, pid)
			}
			return len(left) == 0
		})
		for pid, line := range left {
			t.Errorf("left behind: process %d: %.100s", pid, line)
			Kill(pid, syscall.SIGKILL)
		}
		for _, m := range mountsBelow(RunDir) {
			t.Errorf("left behind: mount %s (%s)", m.Point, m.Kind)
			_ = syscall.Unmount(m.Point, syscall.MNT_DETACH)
		}
		if err := removeCgroup(cgroupRoot + CgroupName()); err != nil {
			t.Errorf("left behind: %v", err)
		}
	})
}

// processTable maps the living processes of the PID namespace to their command lines.
func processTable() map[int]string {
	table := map[int]string{}
	for _, pid := range processes(Alive) {
		table[pid] = strings.Join(Cmdline(pid), " ")
	}
	return table
}
