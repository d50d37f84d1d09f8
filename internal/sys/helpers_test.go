package sys

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) {
	unix.Umask(0) // as in the daemon
	if os.Geteuid() != 0 {
		fmt.Fprintln(os.Stderr, "these tests make devices, owners and mounts: run them as root")
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func want(t *testing.T, what string, err, want error) {
	t.Helper()
	if err != want {
		t.Errorf("%s: %v, want %v", what, err, want)
	}
}

// layer opens a fresh folder for writing.
func layer(t *testing.T) (d *Dir, path string) {
	t.Helper()
	path = t.TempDir()
	return openPlain(t, path), path
}

func openPlain(t *testing.T, path string) *Dir {
	t.Helper()
	fd, err := openTrusted(path)
	must(t, err)
	defer func() { _ = unix.Close(fd) }()
	d, err := openRoot(fd)
	must(t, err)
	t.Cleanup(d.Close)
	return d
}

// write makes a file by its path.
func write(t *testing.T, path, data string) {
	t.Helper()
	must(t, os.MkdirAll(filepath.Dir(path), 0o755))
	must(t, os.WriteFile(path, []byte(data), 0o644))
}

func statOf(t *testing.T, r Ref) Stat {
	t.Helper()
	var st Stat
	must(t, r.Stat(&st))
	return st
}

func mountTmpfs(t *testing.T, point string) {
	t.Helper()
	if out, err := exec.Command("mount", "-t", "tmpfs", "tmpfs", point).CombinedOutput(); err != nil {
		t.Fatalf("mount: %v\n%s", err, out)
	}
	t.Cleanup(func() { must(t, unix.Unmount(point, unix.MNT_DETACH)) })
}

// asUser runs f with the rights of a plain user, on a thread that ends with it.
func asUser(t *testing.T, f func()) {
	t.Helper()
	const id = 1000
	done := make(chan unix.Errno)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread must not go back among the others
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

// bothWalks runs f with openat2 and without.
func bothWalks(t *testing.T, f func(t *testing.T)) {
	t.Run("openat2", f)
	t.Run("openSteps", func(t *testing.T) {
		noOpenat2.Store(true)
		defer noOpenat2.Store(false)
		f(t)
	})
}
