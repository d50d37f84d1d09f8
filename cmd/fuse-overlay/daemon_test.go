package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestMain is also the daemon: runAgain starts this program again, and its first argument is how it
// ends.
func TestMain(m *testing.M) {
	if result := inheritedResult(); result != nil {
		beDaemon(os.Args, result)
		return
	}
	os.Exit(m.Run())
}

// beDaemon stands for runDaemon. Its second argument is a file for what it sees of itself.
func beDaemon(argv []string, result *resultPipe) {
	switch argv[1] {
	case "mounts":
		inheritedNamespace().Close()
		if err := releaseCaller(); err != nil {
			result.failure(err)
			return
		}
		if err := os.WriteFile(argv[2], []byte(seen(result)), 0o600); err != nil {
			result.failure(err)
			return
		}
		_ = result.success()
	case "has room":
		if err := os.WriteFile(argv[2], []byte(tableSize()), 0o600); err != nil {
			result.failure(err)
			return
		}
		_ = result.success()
	case "fails":
		result.failure(errors.New("lowerdir /x: no such file\nor directory"))
	case "exits":
		os.Exit(7)
	case "is killed":
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		time.Sleep(time.Minute)
	}
}

// tableSize is how many descriptors the kernel's table has room for.
func tableSize() string {
	status, _ := os.ReadFile("/proc/self/status")
	_, after, _ := strings.Cut(string(status), "FDSize:")
	line, _, _ := strings.Cut(after, "\n")
	return line
}

// seen is what a caller can see of a daemon: name, session, working directory and descriptors.
func seen(result *resultPipe) string {
	var b strings.Builder
	comm, _ := os.ReadFile("/proc/self/comm")
	dir, _ := os.Getwd()
	fmt.Fprintf(&b, "argv0 %s\ndir %s\n", os.Args[0], dir)
	stat, _ := os.ReadFile("/proc/self/stat")
	_, after, _ := strings.Cut(string(stat), string(comm[:len(comm)-1])+") ")
	if fields := strings.Fields(after); fields[3] == fmt.Sprint(os.Getpid()) { // state, ppid, pgrp, session
		fmt.Fprintf(&b, "session own\n")
	}
	entries, _ := os.ReadDir("/proc/self/fd")
	for _, e := range entries {
		target, err := os.Readlink("/proc/self/fd/" + e.Name())
		if err != nil || strings.HasPrefix(target, "/proc/") || strings.HasPrefix(target, "anon_inode:") {
			continue // of this listing itself, and of the Go runtime
		}
		if strings.HasPrefix(target, "/sys/fs/cgroup/") {
			continue // by which the Go runtime follows the CPU limit
		}
		if e.Name() == fmt.Sprint(result.w.Fd()) {
			target = "result"
		}
		fmt.Fprintf(&b, "fd %s %s\n", e.Name(), target)
	}
	return b.String()
}

func TestRunAgain(t *testing.T) {
	// As a caller would leave them behind: descriptors that survive an exec.
	foreign, err := os.Open("/etc/passwd")
	if err != nil {
		t.Fatal(err)
	}
	defer foreign.Close()
	if err := syscall.Dup3(int(foreign.Fd()), 60, 0); err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(60)
	device, err := os.Open("/dev/zero")
	if err != nil {
		t.Fatal(err)
	}
	defer device.Close()
	if err := syscall.Dup3(int(device.Fd()), 61, 0); err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(61)
	if err := syscall.Dup3(int(device.Fd()), farDescriptor, 0); err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(farDescriptor)

	for _, tt := range []struct{ point, want string }{
		{"/mnt", "argv0 the name\ndir /\nsession own\nfd 0 /dev/null\nfd 1 /dev/null\nfd 2 /dev/null\nfd 3 result\n"},
		{"/dev/fd/61", "argv0 the name\ndir /\nsession own\nfd 0 /dev/null\nfd 1 /dev/null\nfd 2 /dev/null\nfd 3 result\nfd 61 /dev/zero\n"},
		{"/dev/fd/4096", "argv0 the name\ndir /\nsession own\nfd 0 /dev/null\nfd 1 /dev/null\nfd 2 /dev/null\nfd 3 result\nfd 4096 /dev/zero\n"},
	} {
		report := filepath.Join(t.TempDir(), "report")
		if err := runAgain([]string{"the name", "mounts", report}, tt.point, nil); err != nil {
			t.Fatal(err)
		}
		if got, _ := os.ReadFile(report); withoutReserved(string(got)) != tt.want {
			t.Errorf("mount point %s\n got:\n%s\nwant:\n%s", tt.point, got, tt.want)
		}
	}
}

// withoutReserved drops the pipes that go-fuse makes for itself. They keep low descriptors from
// being a file of a mount.
func withoutReserved(report string) string {
	var kept []string
	for line := range strings.Lines(report) {
		if !strings.Contains(line, " pipe:") {
			kept = append(kept, line)
		}
	}
	return strings.Join(kept, "")
}

func TestDaemonThatDoesNotComeUp(t *testing.T) {
	for _, tt := range []struct{ ends, want string }{
		{"fails", "lowerdir /x: no such file; or directory"},
		{"exits", "the daemon ended before the mount was up (exit status 7)"},
		{"is killed", "the daemon ended before the mount was up (signal: killed)"},
		{"ends without a word", "the daemon ended before the mount was up (exit status 0)"},
	} {
		err := runAgain([]string{"the name", tt.ends}, "/mnt", nil)
		if err == nil || err.Error() != tt.want {
			t.Errorf("%s\n got: %v\nwant: %s", tt.ends, err, tt.want)
		}
	}
}

func TestSuccessThatNobodyWaitsFor(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	if err := (&resultPipe{w}).success(); !errors.Is(err, syscall.EPIPE) {
		t.Errorf("got %v, want EPIPE", err)
	}
}

// The namespace of the caller is passed on by further descriptors, between those whose numbers are
// taken.
func TestPassedNamespace(t *testing.T) {
	files, numbers := passedFiles([]uintptr{1, 20, 21, 22}, "/dev/fd/5")
	if !slices.Equal(files, []uintptr{1, 20, 5, 21, 22}) {
		t.Errorf("passed on: %v", files)
	}
	if want := []int{3, 4, 6, 7}; !slices.Equal(numbers, want) {
		t.Errorf("under the numbers %v, want %v", numbers, want)
	}
	t.Setenv(callerVariable, "")
	if n := inheritedNamespace(); n != nil {
		t.Error("a namespace out of nothing")
	}
}

func TestPassedFiles(t *testing.T) {
	const result, probe = 1, 2
	for _, tt := range []struct {
		point   string
		numbers []int
		files   []uintptr
	}{
		{"/mnt", []int{3, 4}, []uintptr{result, probe}},
		{"/dev/fd/0", []int{3, 4}, []uintptr{result, probe}}, // a standard stream is no device; refused where that is checked
		{"/dev/fd/3", []int{4, 5}, []uintptr{3, result, probe}},
		{"/dev/fd/4", []int{3, 5}, []uintptr{result, 4, probe}},
		{"/dev/fd/7", []int{3, 4}, []uintptr{result, probe, closed, closed, 7}},
	} {
		files, numbers := passedFiles([]uintptr{result, probe}, tt.point)
		if !slices.Equal(files, tt.files) || !slices.Equal(numbers, tt.numbers) {
			t.Errorf("%s: passes on %v, as %v, want %v, %v", tt.point, files, numbers, tt.files, tt.numbers)
		}
	}
}

// The daemon's table of descriptors is large from the beginning. If the limit is low, the daemon
// starts all the same.
func TestRoomForDescriptors(t *testing.T) {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
			t.Error(err)
		}
	}()
	for _, tt := range []struct {
		most  uint64
		large bool
	}{{farDescriptor + 1, true}, {farDescriptor, false}} {
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: tt.most, Max: limit.Max}); err != nil {
			t.Fatal(err)
		}
		report := filepath.Join(t.TempDir(), "report")
		if err := runAgain([]string{"the name", "has room", report}, "/mnt", nil); err != nil {
			t.Fatal(err)
		}
		text, _ := os.ReadFile(report)
		room, err := strconv.Atoi(strings.TrimSpace(string(text)))
		if err != nil || room >= 2*farDescriptor != tt.large {
			t.Errorf("of %d descriptors there is room for %q (%v)", tt.most, text, err)
		}
	}
}
