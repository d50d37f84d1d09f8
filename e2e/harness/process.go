package harness

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
)

// A mount ends with the last process that can reach it, and its daemon with the mount.

// DaemonsWith lists the daemons that have an argument.
func DaemonsWith(arg string) (pids []int) {
	for _, pid := range ProcessesOf(Program) {
		if strings.Contains(strings.Join(Cmdline(pid), " "), arg) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// WantDetached fails if a daemon holds what was its caller's: the standard streams, a pipe, one of the files named, the
// working directory, the session, or a parent other than who adopts orphans here.
func WantDetached(t *testing.T, pid int, files ...string) {
	t.Helper()
	fds := OpenFDs(pid)
	for i := range 3 {
		Equal(t, fmt.Sprintf("descriptor %d", i), fds[i], "/dev/null")
	}
	for n, target := range fds {
		if strings.HasPrefix(target, "pipe:") || slices.Contains(files, target) {
			t.Errorf("descriptor %d is still %s", n, target)
		}
	}
	cwd, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", pid))
	Check(t, err)
	Equal(t, "working directory", cwd, "/")
	f := statFields(pid)
	Equal(t, "its own session", f[3], fmt.Sprint(pid))
	Equal(t, "parent", f[1], parentOfOrphans())
}

// parentOfOrphans is who adopts processes here: init, or a subreaper above us.
var parentOfOrphans = sync.OnceValue(func() string {
	out, err := exec.Command("bash", "-c", "sleep 0.3 >/dev/null & echo $!; sleep 0.05").Output()
	if err != nil {
		return "unknown: " + err.Error()
	}
	if f := statFields(atoi(strings.TrimSpace(string(out)))); len(f) > 1 {
		return f[1]
	}
	return "1"
})
