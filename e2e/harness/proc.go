package e2e

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

// mountLine is one line of /proc/self/mountinfo.
type mountLine struct {
	point, source, kind string
	options, super      string
	minor               int // of the device: for FUSE the number under /sys/fs/fuse/connections
}

func mountTable() []mountLine {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		panic(err)
	}
	var table []mountLine
	for line := range strings.SplitSeq(strings.TrimSpace(string(text)), "\n") {
		head, tail, ok := strings.Cut(line, " - ")
		f, g := strings.Fields(head), strings.Fields(tail)
		if !ok || len(f) < 6 || len(g) < 3 {
			continue
		}
		_, minor, _ := strings.Cut(f[2], ":")
		n, _ := strconv.Atoi(minor)
		table = append(table, mountLine{unescapeMount(f[4]), unescapeMount(g[1]), g[0], f[5], g[2], n})
	}
	return table
}

// unescapeMount undoes the octal escapes of the mount tables.
func unescapeMount(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// mountAt answers with the topmost mount on a folder.
func mountAt(point string) (mountLine, bool) {
	table := mountTable()
	for i := len(table) - 1; i >= 0; i-- {
		if table[i].point == point {
			return table[i], true
		}
	}
	return mountLine{}, false
}

func mountedType(point string) (string, bool) {
	m, ok := mountAt(point)
	return m.kind, ok
}

// processesOf lists the processes that run the program at path.
func processesOf(path string) []int {
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

func cmdline(pid int) []string {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	var args []string
	for arg := range bytes.SplitSeq(bytes.TrimSuffix(text, []byte{0}), []byte{0}) {
		args = append(args, string(arg))
	}
	return args
}

// daemonsOf lists the processes of the program under test that serve a mount point.
func daemonsOf(point string) []int {
	var pids []int
	for _, pid := range processesOf(binPath) {
		if slices.Contains(cmdline(pid), point) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// alive tells whether a process has a thread that is not yet dead: the first thread may be a zombie while others still
// hold the descriptors.
func alive(pid int) bool {
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

// waitGone waits for the end of a process.
func waitGone(pid int, limit time.Duration) bool {
	return eventually(limit, func() bool { return !alive(pid) })
}

// eventually polls a condition.
func eventually(limit time.Duration, cond func() bool) bool {
	for deadline := time.Now().Add(limit); ; time.Sleep(5 * time.Millisecond) {
		if cond() {
			return true
		}
		if time.Now().After(deadline) {
			return false
		}
	}
}

// openFDs maps the descriptors of a process to what they lead to.
func openFDs(pid int) map[int]string {
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

// abortConnection makes the kernel answer every request of a FUSE mount with an error.
func abortConnection(minor int) {
	f, err := os.OpenFile(fmt.Sprintf("/sys/fs/fuse/connections/%d/abort", minor), os.O_WRONLY, 0)
	if err != nil {
		return
	}
	_, _ = f.WriteString("1")
	_ = f.Close()
}

func kill(pid int, sig syscall.Signal) { _ = syscall.Kill(pid, sig) }

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

// whoMounts lists the processes in whose mount namespaces a device is mounted.
func whoMounts(minor int) (pids []string) {
	tables, _ := filepath.Glob("/proc/[0-9]*/mountinfo")
	for _, table := range tables {
		text, err := os.ReadFile(table)
		if err == nil && strings.Contains(string(text), fmt.Sprintf(" 0:%d / ", minor)) {
			pids = append(pids, filepath.Base(filepath.Dir(table)))
		}
	}
	return pids
}
