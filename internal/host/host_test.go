package host

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestHost(t *testing.T) {
	if n, err := OpenFilesLimit(); err != nil || n < 3 {
		t.Errorf("%d descriptors, %v", n, err)
	}
	_, err := os.Stat("/sys/fs/selinux")
	if HasSELinux() && err != nil {
		t.Error("SELinux on a host without it")
	}
	point := t.TempDir()
	must(t, unix.Mount("tmpfs", point, "tmpfs", 0, ""))
	must(t, os.WriteFile(filepath.Join(point, "f"), nil, 0o644))
	held, err := unix.Open(point, unix.O_PATH|unix.O_CLOEXEC, 0)
	must(t, err)
	defer func() { _ = unix.Close(held) }()
	want(t, "sync", SyncMount(point), nil)
	want(t, "sync of nothing", SyncMount(filepath.Join(point, "nothing")), unix.ENOENT)
	want(t, "detach a mount in use", Detach(point), nil)
	want(t, "detach again", Detach(point), unix.EINVAL)
	if _, err := os.Stat(filepath.Join(point, "f")); err == nil {
		t.Error("still mounted")
	}
	var st unix.Stat_t
	want(t, "what is open stays", unix.Fstatat(held, "f", &st, 0), nil)
}

func TestLinuxAtLeast(t *testing.T) {
	for _, c := range []struct {
		release      string
		major, minor int
		want         bool
	}{
		{"6.18.44-fc", 5, 2, true}, {"5.2.0", 5, 2, true}, {"5.1.21", 5, 2, false}, {"4.19.0-amd64", 5, 2, false},
		{"5.10", 5, 9, true}, {"six", 5, 2, false}, {"", 0, 0, false},
	} {
		if got := atLeast(c.release, c.major, c.minor); got != c.want {
			t.Errorf("%q at least %d.%d: %v", c.release, c.major, c.minor, got)
		}
	}
	if !LinuxAtLeast(3, 0) || LinuxAtLeast(1000, 0) {
		t.Error("the running kernel is not known")
	}
}
