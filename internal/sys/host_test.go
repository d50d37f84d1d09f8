package sys

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
	write(t, filepath.Join(point, "f"), "")
	held := openPlain(t, point)
	want(t, "sync", SyncMount(point), nil)
	want(t, "sync of nothing", SyncMount(filepath.Join(point, "nothing")), unix.ENOENT)
	want(t, "detach a mount in use", Detach(point), nil)
	want(t, "detach again", Detach(point), unix.EINVAL)
	if _, err := os.Stat(filepath.Join(point, "f")); err == nil {
		t.Error("still mounted")
	}
	var st Stat
	want(t, "what is open stays", held.At("f").Stat(&st), nil)
}
