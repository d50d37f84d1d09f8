package harness

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Names, as ps shows them, of processes that run the program beside a daemon.
const (
	keeperName     = "overlay-keeper" // of the process that unmounts for a daemon
	supervisorName = "fuse-overlay-sv"
)

// ProcessesOf lists the processes that run the program at path, but not those that unmount for
// daemons.
func ProcessesOf(path string) []int {
	return slices.DeleteFunc(allOf(path), func(pid int) bool { return nameOf(pid) == keeperName })
}

// KeeperOf returns the process that unmounts for a daemon; 0: there is none.
func KeeperOf(pid int) int {
	// Not by its executable, which a plain user does not see.
	found := processes(func(p int) bool {
		stat := statFields(p)
		return nameOf(p) == keeperName && len(stat) > 1 && stat[1] == strconv.Itoa(pid)
	})
	if len(found) == 0 {
		return 0
	}
	return found[0]
}

// allOf lists the processes that run the program at path. If the program is for another CPU, the
// executable is that of the emulator, whose first argument is the program.
func allOf(path string) []int {
	return processes(func(pid int) bool {
		exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
		if err != nil {
			return false
		}
		if strings.HasPrefix(filepath.Base(exe), "qemu-") {
			argv := Cmdline(pid)
			return len(argv) > 1 && argv[1] == path
		}
		return exe == path || exe == path+" (deleted)"
	})
}

// DaemonsOf lists the processes of the program under test that serve a mount point.
func DaemonsOf(point string) []int {
	return slices.DeleteFunc(withPoint(point), isSupervisor)
}

// SupervisorsOf lists the supervisors of the daemon of a mount point (option supervise).
func SupervisorsOf(point string) []int {
	return slices.DeleteFunc(withPoint(point), func(pid int) bool { return !isSupervisor(pid) })
}

func withPoint(point string) []int {
	return slices.DeleteFunc(ProcessesOf(Program), func(pid int) bool { return !slices.Contains(Cmdline(pid), point) })
}

func isSupervisor(pid int) bool { return nameOf(pid) == supervisorName }

// nameOf is the name of a process that ps shows.
func nameOf(pid int) string {
	name, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	return strings.TrimSuffix(string(name), "\n")
}

// DaemonsWith lists the processes of the program under test whose command line contains a text.
func DaemonsWith(text string) []int {
	return slices.DeleteFunc(ProcessesOf(Program), func(pid int) bool {
		return !strings.Contains(strings.Join(Cmdline(pid), " "), text)
	})
}

// processes lists the processes of the PID namespace for which f is true.
func processes(f func(pid int) bool) (pids []int) {
	entries, _ := os.ReadDir("/proc")
	for _, entry := range entries {
		if pid, err := strconv.Atoi(entry.Name()); err == nil && f(pid) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// Cmdline is the command line of a process.
func Cmdline(pid int) []string {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	return strings.Split(strings.TrimSuffix(string(text), "\x00"), "\x00")
}

// Alive reports whether a process has a thread that still runs. The first thread may be a zombie
// while others still hold the descriptors.
func Alive(pid int) bool {
	threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	for _, path := range threads {
		text, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		state := strings.TrimSpace(string(text[bytes.LastIndexByte(text, ')')+1:]))
		if state != "" && state[0] != 'Z' && state[0] != 'X' {
			return true
		}
	}
	return false
}

// WaitGone waits for the end of a process, and reports whether it has ended.
func WaitGone(pid int, limit time.Duration) bool {
	return Eventually(limit, func() bool { return !Alive(pid) })
}

// Eventually polls a condition until it is true, and reports whether that was within the limit.
func Eventually(limit time.Duration, cond func() bool) bool {
	for deadline := time.Now().Add(limit); ; time.Sleep(5 * time.Millisecond) {
		if cond() {
			return true
		}
		if time.Now().After(deadline) {
			return false
		}
	}
}

// Kill sends a signal to a process, which may have ended.
func Kill(pid int, sig syscall.Signal) { _ = syscall.Kill(pid, sig) }

// OpenFDs maps the descriptors of a process to the targets of their links in /proc.
func OpenFDs(pid int) map[int]string {
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	entries, _ := os.ReadDir(dir)
	fds := map[int]string{}
	for _, entry := range entries {
		n, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		if target, err := os.Readlink(filepath.Join(dir, entry.Name())); err == nil {
			fds[n] = target
		}
	}
	return fds
}

// WantDetached fails the test if a daemon holds a thing of its caller: the standard streams, a
// pipe, one of these files, the working directory, the session, or the parent process.
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

// statFields are the fields of /proc/PID/stat from the state on: state, ppid, pgrp, session, ...
func statFields(pid int) []string {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil
	}
	return strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
}

// parentOfOrphans is the process that adopts orphans here: init, or a subreaper above this process.
var parentOfOrphans = sync.OnceValue(func() string {
	out, err := exec.Command("bash", "-c", "sleep 0.3 >/dev/null & echo $!; sleep 0.05").Output()
	if err != nil {
		return "unknown: " + err.Error()
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(out)))
	if f := statFields(pid); err == nil && len(f) > 1 {
		return f[1]
	}
	return "1"
})

// kernelStacks lists the kernel functions in which the threads of a process wait, as far as this
// process may read them.
func kernelStacks(pid int) string {
	var b strings.Builder
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", pid))
	for _, task := range tasks {
		for _, file := range []string{"comm", "wchan", "stack"} {
			text, err := os.ReadFile(filepath.Join(task, file))
			if err != nil {
				text = []byte(err.Error())
			}
			fmt.Fprintf(&b, "%s %s\n", file, strings.TrimSpace(string(text)))
		}
	}
	return b.String()
}
