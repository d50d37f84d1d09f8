// Package testkit holds what the tests of several rooms need: trees as text tables, file systems on
// loop devices, folders in memory, another user's rights.
//
// It uses plain paths and no package of the program, so what a test compares with does not depend
// on what it tests. Package internal/testkit/systest has what the tests need of internal/sys.
// testkit knows no layer and no overlay.
package testkit

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// Main runs the tests of a package that needs root, with umask 0 as in the daemon. It ends the
// process, with status 1 if that is not root.
func Main(m *testing.M) {
	unix.Umask(0)
	if os.Geteuid() != 0 {
		fmt.Fprintln(os.Stderr, "these tests make devices, owners and mounts: run them as root")
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// MainInMemory is [Main] with temporary folders on the tmpfs at /dev/shm, if that takes the xattrs
// that a layer needs (Linux 6.6). It suits packages that make many small trees. What a disk adds is
// tested through a mount.
func MainInMemory(m *testing.M) {
	const memory = "/dev/shm"
	if dir, err := os.MkdirTemp(memory, ""); err == nil {
		if unix.Setxattr(dir, "user.overlay.test", nil, 0) == nil {
			_ = os.Setenv("TMPDIR", memory)
		}
		_ = os.Remove(dir)
	}
	Main(m)
}

// Must ends the test if err is not nil.
func Must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// WantError fails the test if err is not want.
func WantError(t *testing.T, what string, err, want error) {
	t.Helper()
	if err != want {
		t.Errorf("%s: %v, want %v", what, err, want)
	}
}

// Run runs a program, which must succeed, and returns what it writes.
func Run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
	return string(out)
}

// AsUser runs f with the rights of a plain user, on a thread that ends with it.
func AsUser(t *testing.T, uid int, f func()) {
	t.Helper()
	done := make(chan unix.Errno)
	go func() {
		runtime.LockOSThread() // and never unlocked, so the thread ends
		id := uintptr(uid)
		_, _, errno := unix.RawSyscall(unix.SYS_SETGROUPS, 0, 0, 0)
		if errno == 0 {
			_, _, errno = unix.RawSyscall(unix.SYS_SETRESGID, id, id, id)
		}
		if errno == 0 {
			_, _, errno = unix.RawSyscall(unix.SYS_SETRESUID, id, id, id)
		}
		if errno == 0 {
			f()
		}
		done <- errno
	}()
	if errno := <-done; errno != 0 {
		t.Fatal(errno)
	}
}

// OpenFDs returns how many descriptors the process has open.
func OpenFDs(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	Must(t, err)
	return len(entries)
}

// Layers are the folders of an overlay.
type Layers struct {
	Upper, Work string // Work does not exist
	Lowers      []string
}

// NewLayers makes the folders that tables describe, the upper first.
func NewLayers(t *testing.T, upper string, lowers ...string) Layers {
	t.Helper()
	base := t.TempDir()
	build := func(name, table string) string {
		dir := filepath.Join(base, name)
		Must(t, os.Mkdir(dir, 0o755))
		Build(t, dir, table)
		return dir
	}
	l := Layers{Upper: build("upper", upper), Work: filepath.Join(base, "work")}
	for i, table := range lowers {
		l.Lowers = append(l.Lowers, build(fmt.Sprint("lower", i+1), table))
	}
	return l
}
