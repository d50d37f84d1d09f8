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

// leaks reports mounts and daemons that outlive the tests, and ends them.
func leaks() error {
	var errs []error
	for _, m := range MountTable() {
		if strings.HasPrefix(m.Point, RunDir+"/") { // others may mount elsewhere meanwhile
			errs = append(errs, fmt.Errorf("mount %s (%s)", m.Point, m.Kind))
			_ = syscall.Unmount(m.Point, syscall.MNT_DETACH)
		}
	}
	var pids []int
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if pids = ProcessesOf(Program); len(pids) == 0 {
			break
		}
	}
	for _, pid := range pids {
		errs = append(errs, fmt.Errorf("process %d: %s", pid, strings.Join(Cmdline(pid), " ")))
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	return errors.Join(errs...)
}

// RemoveTree removes a folder of the run, but never through a mount that is still there.
func RemoveTree(dir string) {
	for _, m := range MountTable() {
		if strings.HasPrefix(m.Point, dir+"/") {
			fmt.Fprintf(os.Stderr, "e2e: %s is kept: %s is still mounted\n", dir, m.Point)
			return
		}
	}
	if err := os.RemoveAll(dir); err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
	}
}

// WantNothingRuns waits for the end of all processes that name a folder in their arguments.
func WantNothingRuns(t *testing.T, dir string) {
	t.Helper()
	if Eventually(5*time.Second, func() bool { return len(mentioning(dir)) == 0 }) {
		return
	}
	for pid, line := range mentioning(dir) {
		t.Errorf("left behind: %d %s", pid, line)
		Kill(pid, syscall.SIGKILL)
	}
}

// mentioning lists the processes that name a folder in their arguments: those of another mount namespace cannot be told
// by their executable.
func mentioning(dir string) map[int]string {
	found := map[int]string{}
	entries, _ := os.ReadDir("/proc")
	for _, entry := range entries {
		if pid := atoi(entry.Name()); entry.IsDir() && fmt.Sprint(pid) == entry.Name() {
			if line := strings.Join(Cmdline(pid), " "); strings.Contains(line, dir+"/") {
				found[pid] = line
			}
		}
	}
	return found
}
