package harness

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// ProcessesOf lists the processes that run the program at path.
func ProcessesOf(path string) []int {
	entries, _ := os.ReadDir("/proc")
	var pids []int
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
		if err == nil && (exe == path || exe == path+" (deleted)") {
			pids = append(pids, pid)
		}
	}
	return pids
}

func Cmdline(pid int) []string {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	var args []string
	for arg := range bytes.SplitSeq(bytes.TrimSuffix(text, []byte{0}), []byte{0}) {
		args = append(args, string(arg))
	}
	return args
}

// DaemonsOf lists the processes of the program under test that serve a mount point.
func DaemonsOf(point string) []int {
	var pids []int
	for _, pid := range ProcessesOf(Program) {
		if slices.Contains(Cmdline(pid), point) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// Alive tells whether a process has a thread that is not yet dead: the first thread may be a zombie while others still
// hold the descriptors.
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

// statFields are the fields of /proc/PID/stat from the state on: state, ppid, pgrp, session, ...
func statFields(pid int) []string {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil
	}
	return strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
}

// WaitGone waits for the end of a process.
func WaitGone(pid int, limit time.Duration) bool {
	return Eventually(limit, func() bool { return !Alive(pid) })
}

// Eventually polls a condition.
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

// OpenFDs maps the descriptors of a process to what they lead to.
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

// AbortConnection makes the kernel answer every request of a FUSE mount with an error.
func AbortConnection(minor int) {
	f, err := os.OpenFile(fmt.Sprintf("/sys/fs/fuse/connections/%d/abort", minor), os.O_WRONLY, 0)
	if err != nil {
		return
	}
	_, _ = f.WriteString("1")
	_ = f.Close()
}

func Kill(pid int, sig syscall.Signal) { _ = syscall.Kill(pid, sig) }

// kernelStacks tells where in the kernel the threads of a process are, as far as we may know.
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
