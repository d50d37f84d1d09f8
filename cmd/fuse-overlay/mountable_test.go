package main

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/fuse-overlay/fuse-overlay/fs/conn"
)

func TestFindMountPoint(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Chdir(dir)
	for _, err := range []error{
		os.Mkdir("dir", 0o700), os.WriteFile("file", nil, 0o600),
		os.Symlink("dir", "link"), os.Symlink("nowhere", "dangling"), os.Symlink("loop", "loop"),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct{ point, want string }{
		{"dir", dir + "/dir"},
		{"./dir/../dir/", dir + "/dir"},
		{"link", dir + "/dir"},
		{dir + "/link", dir + "/dir"},
		{"file", `mount point "file": not a directory`},
		{"none", `mount point "none": no such file or directory`},
		{"dangling", `mount point "dangling": no such file or directory`},
		{"loop", `mount point "loop": too many levels of symbolic links`},
		{"file/x", `mount point "file/x": not a directory`},
	} {
		got, err := findMountPoint(tt.point)
		if err != nil {
			got = err.Error()
		}
		if got != tt.want {
			t.Errorf("%s: got %s, want %s", tt.point, got, tt.want)
		}
	}
}

func TestDeviceFD(t *testing.T) {
	for _, tt := range []struct {
		point string
		fd    int
		ok    bool
	}{
		{"/dev/fd/7", 7, true},
		{"/dev/fd/0", 0, true},
		{"/dev/fd/-1", 0, false},
		{"/dev/fd/", 0, false},
		{"/dev/fd/x", 0, false},
		{"/dev/fd", 0, false},
		{"dev/fd/7", 0, false},
	} {
		if fd, ok := conn.DeviceFD(tt.point); ok != tt.ok || ok && fd != tt.fd {
			t.Errorf("%s: got %d, %v", tt.point, fd, ok)
		}
	}
}

func TestCheckDeviceFD(t *testing.T) {
	f, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := checkDeviceFD(int(f.Fd())); err == nil || !strings.Contains(err.Error(), "not an open /dev/fuse") {
		t.Errorf("/dev/null passed for a FUSE device: %v", err)
	}
	if err := checkDeviceFD(1 << 20); err == nil || !strings.Contains(err.Error(), "bad file descriptor") {
		t.Errorf("a closed descriptor passed for a FUSE device: %v", err)
	}
}

func TestExplainDevice(t *testing.T) {
	for errno, want := range map[syscall.Errno]string{
		syscall.ENOENT: "cannot open /dev/fuse: no such file or directory (is the kernel module",
		syscall.ENODEV: "cannot open /dev/fuse: no such device (is the kernel module",
		syscall.EACCES: "cannot open /dev/fuse: permission denied (its mode",
		syscall.EPERM:  "cannot open /dev/fuse: operation not permitted (is the container allowed",
		syscall.EMFILE: "cannot open /dev/fuse: too many open files",
	} {
		err := explainDevice(&os.PathError{Op: "open", Path: fuseDevice, Err: errno})
		if !strings.HasPrefix(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

func TestPrepareProcess(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0o22))
	if err := prepareProcess(); err != nil {
		t.Fatal(err)
	}
	if mask := syscall.Umask(0); mask != 0 {
		t.Errorf("umask %o", mask)
	}
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil || limit.Cur != limit.Max {
		t.Errorf("limit of open files %d, hard %d (%v)", limit.Cur, limit.Max, err)
	}
}
