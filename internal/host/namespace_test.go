package host

import (
	"errors"
	"os"
	"os/exec"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// elsewhere is a process in a mount namespace of its own, where a file system of memory lies at
// dir.
func elsewhere(t *testing.T, dir string) *exec.Cmd {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("mounting is for root")
	}
	cmd := exec.Command("unshare", "-m", "--propagation", "private", "sh", "-euc", "mount -n -t tmpfs x "+dir+"; >"+dir+"/up; exec sleep 100")
	must(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if _, err := os.Stat("/proc/" + strconv.Itoa(cmd.Process.Pid) + "/root" + dir + "/up"); err == nil {
			return cmd
		}
		if time.Now().After(end) {
			t.Fatal("the other namespace does not come up")
		}
	}
}

// A call in another namespace sees what is mounted there, with its root and its working directory,
// and leaves nothing of that behind.
func TestDoInAnotherNamespace(t *testing.T) {
	dir := t.TempDir()
	other := elsewhere(t, dir)
	own, err := CurrentNamespace()
	must(t, err)
	defer own.Close()
	ns, err := unix.Open("/proc/"+strconv.Itoa(other.Process.Pid)+"/ns/mnt", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	must(t, err)
	n := &MountNamespace{ns, -1, -1}
	defer n.Close()
	if own.ID() == n.ID() || own.ID() != (*MountNamespace)(nil).ID() {
		t.Errorf("the namespaces are %d, %d", own.ID(), n.ID())
	}
	for range 20 { // on whatever thread
		must(t, n.Do(func() error {
			_, err := os.Stat(dir + "/up")
			return err
		}))
		if _, err := os.Stat(dir + "/up"); !errors.Is(err, os.ErrNotExist) {
			t.Fatalf("after the call: %v", err)
		}
	}
	place, err := n.PlaceOf(dir)
	must(t, err)
	if place.Namespace != n.ID() || place.Mount.Type != "tmpfs" {
		t.Errorf("the place is %+v", place)
	}
	if _, err := own.PlaceOf(dir); err != unix.ENOENT {
		t.Errorf("here: %v", err)
	}
	t.Chdir(dir)
	here, err := CurrentNamespace()
	must(t, err)
	defer here.Close()
	t.Chdir("/")
	must(t, here.Do(func() error {
		if wd, err := unix.Getwd(); err != nil || wd != dir {
			t.Errorf("the working directory is %q, %v", wd, err)
		}
		return nil
	}))
}

// A mount is in sight as long as a process of its namespace sees it there, and no longer.
func TestPlaceInSight(t *testing.T) {
	dir := t.TempDir()
	other := elsewhere(t, dir)
	ns, err := unix.Open("/proc/"+strconv.Itoa(other.Process.Pid)+"/ns/mnt", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	must(t, err)
	n := &MountNamespace{ns, -1, -1}
	place, err := n.PlaceOf(dir)
	must(t, err)
	inSight := func() bool {
		seen, err := place.InSight()
		must(t, err)
		return seen
	}
	if !inSight() {
		t.Error("it is not in sight")
	}
	found, err := place.Visit(func(mounts []MountEntry) error {
		if got := place.Point(mounts); got != dir {
			t.Errorf("it is at %q", got)
		}
		return unix.Unmount(dir, 0)
	})
	if !found || err != nil {
		t.Errorf("visited: %v, %v", found, err)
	}
	if inSight() {
		t.Error("unmounted, it is in sight")
	}
	must(t, n.Do(func() error { return unix.Mount("y", dir, "tmpfs", 0, "") }))
	place, err = n.PlaceOf(dir)
	must(t, err)
	n.Close()
	must(t, other.Process.Kill())
	_ = other.Wait()
	if found, err := place.Visit(func([]MountEntry) error { return nil }); found || err != nil {
		t.Errorf("a namespace without a process: %v, %v", found, err)
	}
	if inSight() {
		t.Error("with its namespace gone, it is in sight")
	}
}
