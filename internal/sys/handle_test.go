package sys

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/testkit"
)

// An object has one handle under all its names. No other object has it, and it leads to the object
// wherever that is moved.
func TestHandles(t *testing.T) {
	d, kinds := objects(t)
	seen := map[Handle]string{}
	for _, name := range kinds {
		var handle Handle
		for how, r := range refs(t, d, name) {
			h, err := r.Handle()
			must(t, err)
			if handle == (Handle{}) {
				handle = h
			}
			if h != handle || h.ID == "" {
				t.Errorf("%s as %s has the handle %+v, not %+v", name, how, h, handle)
			}
		}
		if other, ok := seen[handle]; ok {
			t.Errorf("%s and %s have one handle", name, other)
		}
		seen[handle] = name
		want := statOf(t, d.At(name))
		must(t, d.Rename(name, d, "moved", 0))
		var st Stat
		must(t, d.StatHandle(handle, &st))
		if st.Dev != want.Dev || st.Ino != want.Ino || st.Mode != want.Mode {
			t.Errorf("the handle of %s leads to %+v", name, st)
		}
		must(t, os.RemoveAll(filepath.Join(pathOf(t, d), "moved")))
	}
}

func pathOf(t *testing.T, d *Dir) string {
	t.Helper()
	path, err := os.Readlink(d.Ref().procPath())
	must(t, err)
	return path
}

// A handle of what is gone is stale, also when another object has got its inode; one of nonsense is
// an error, not a crash.
func TestStaleHandles(t *testing.T) {
	d := openPlain(t, testkit.MountImage(t, "ext4", ""))
	must(t, d.Mknod("f", unix.S_IFREG, 0))
	h, err := d.At("f").Handle()
	must(t, err)
	ino := statOf(t, d.At("f")).Ino
	must(t, d.Unlink("f"))
	must(t, d.Mknod("g", unix.S_IFREG, 0))
	if statOf(t, d.At("g")).Ino != ino {
		t.Log("the inode was not used again")
	}
	var st Stat
	want(t, "stale", d.StatHandle(h, &st), unix.ESTALE)
	for _, bad := range []Handle{{}, {Type: 1}, {Type: 1, ID: "x"}, {Type: 0xff, ID: string(make([]byte, 128))}, {Type: 1, ID: string(make([]byte, 8))}} {
		if err := d.StatHandle(bad, &st); err == nil {
			t.Errorf("%+v leads somewhere", bad)
		}
	}
	nothing := d.At("nothing")
	_, err = nothing.Handle()
	want(t, "of nothing", err, unix.ENOENT)
	_, err = d.At("../x").Handle()
	want(t, "of a path", err, unix.EINVAL)
}

// Not every file system has handles.
func TestNoHandles(t *testing.T) {
	d := openPlain(t, "/proc/self")
	_, err := d.At("stat").Handle()
	want(t, "in /proc", err, unix.EOPNOTSUPP)
	if uuid, err := d.FSUUID(); err != nil || uuid != [16]byte{} {
		t.Errorf("/proc has the number %x, %v", uuid, err)
	}
}

const handleChild = "SYS_TEST_HANDLE"

// Root of a user namespace sees handles but may not open by them.
func TestHandlesInUserNamespaces(t *testing.T) {
	if path := os.Getenv(handleChild); path != "" {
		d := openPlain(t, path)
		h, err := d.At("f").Handle()
		must(t, err)
		var st Stat
		want(t, "open by handle", d.StatHandle(h, &st), unix.EPERM)
		return
	}
	dir := t.TempDir()
	for p := dir; p != os.TempDir(); p = filepath.Dir(p) {
		must(t, os.Chmod(p, 0o755))
	}
	write(t, filepath.Join(dir, "f"), "")
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestHandlesInUserNamespaces$")
	cmd.Env = append(os.Environ(), handleChild+"="+dir)
	ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: 100000, Size: 65536}}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWUSER, UidMappings: ids, GidMappings: ids,
		GidMappingsEnableSetgroups: true, Credential: &syscall.Credential{},
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}
