package mounts

import (
	"fmt"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/host"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// entry is a mount of the user of this process.
func entry(dev uint64) host.MountEntry {
	return host.MountEntry{
		ID: 1, Dev: dev, Point: "/m", Type: "fuse.fuse-overlay", Options: fmt.Sprintf("rw,user_id=%d,max_read=1", os.Getuid()),
	}
}

// lockedBy locks a directory and publishes a holder, as a daemon does.
func lockedBy(t *testing.T, h sys.Holder, lock bool) *sys.Dir {
	t.Helper()
	d, _, err := sys.OpenLower(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	if lock {
		if err := d.Lock(); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.Publish(h); err != nil {
		t.Fatal(err)
	}
	return d
}

// A process is the holder of a mount if it publishes that beside a lock that, by the kernel, is its
// own. What others publish in its name does not count.
func TestHolderIsVerified(t *testing.T) {
	const dev = 1 << 19 // of no file system
	self := sys.Self(host.Place{Mount: host.MountEntry{Dev: dev, ID: 1, Point: "/m"}})
	holder := func(m host.MountEntry) int { pid, _ := newSources().holderOf(m); return pid }
	if pid := holder(entry(dev)); pid != 0 {
		t.Fatalf("before: %d", pid)
	}

	forged := self
	forged.PID = os.Getppid() // that process has no lock there
	lockedBy(t, forged, true)
	unlocked := lockedBy(t, self, false) // no process has one here
	if pid := holder(entry(dev)); pid != 0 {
		t.Errorf("forged: %d", pid)
	}
	unlocked.Close()

	upper, work := lockedBy(t, self, true), lockedBy(t, self, true)
	pid, inodes := newSources().holderOf(entry(dev))
	if pid != os.Getpid() || len(inodes) != 2 {
		t.Errorf("the holder is %d with %q", pid, inodes)
	}
	u := &unmounted{daemon: Daemon{PID: pid, inodes: inodes}}
	if !u.holdsLocks() {
		t.Error("the holder has no locks")
	}
	if pid := holder(entry(dev + 1)); pid != 0 {
		t.Errorf("of another mount: %d", pid)
	}
	if got := newSources().published(entry(dev)); len(got) != 3 {
		t.Errorf("%d directories are said to be of the mount, want two and a forged one", len(got))
	}
	others := entry(dev)
	others.Options = "rw,user_id=12345"
	if pid := holder(others); pid != 0 {
		t.Errorf("of a mount of another user: %d", pid)
	}
	upper.Close()
	if !u.holdsLocks() {
		t.Error("the work directory is still locked")
	}
	work.Close()
	if u.holdsLocks() || holder(entry(dev)) != 0 {
		t.Error("after its end it still is the holder")
	}
}

// A daemon is known with its age and its layers.
func TestDaemonOf(t *testing.T) {
	const dev = 1<<19 + 7
	lockedBy(t, sys.Self(host.Place{Mount: host.MountEntry{Dev: dev}}), true)
	d := newSources().daemonOf(entry(dev))
	if d.PID != os.Getpid() || d.Age <= 0 || d.Age > time.Hour || !d.Known {
		t.Errorf("got %+v", d)
	}
}

func TestNamesPoint(t *testing.T) {
	for _, tt := range []struct {
		path, point string
		want        bool
	}{
		{"/a/m", "/a/m", true},
		{"/a/m/", "/a/m", true},
		{"/a/./m", "/a/m", true},
		{"/m", "/a/m", false},
		{"m", "/a/m", false},
	} {
		if got := namesPoint([]string{"fuse-overlay", tt.path, "-o", "lowerdir=l"}, tt.point); got != tt.want {
			t.Errorf("%s for %s: %v", tt.path, tt.point, got)
		}
	}
	for _, argv := range [][]string{{"fuse-overlay"}, {"fuse-overlay", "-o"}, {"fuse-overlay", "umount", "/m"}, nil} {
		if namesPoint(argv, "/m") {
			t.Errorf("%q names a point", argv)
		}
	}
}

func TestIsOwn(t *testing.T) {
	for _, tt := range []struct {
		kind, options string
		want          bool
	}{
		{"fuse.fuse-overlay", "rw,user_id=0", true},
		{"fuse.fuse-overlayfs", "rw,user_id=0,max_read=131072", true},
		{"fuse.fuse-overlayfs", "rw,user_id=0,default_permissions", false}, // the other program
		{"fuse.sshfs", "rw,user_id=0,max_read=131072", false},
		{"overlay", "rw", false},
	} {
		if got := isOwn(host.MountEntry{Type: tt.kind, Options: tt.options}); got != tt.want {
			t.Errorf("%s %s: %v", tt.kind, tt.options, got)
		}
	}
}

func TestUserAndMode(t *testing.T) {
	if u := userOf(host.MountEntry{Options: "rw,user_id=77"}); u != 77 {
		t.Errorf("the user is %d", u)
	}
	for _, options := range []string{"rw", "rw,user_id=x", ""} {
		if u := userOf(host.MountEntry{Options: options}); u != noUser {
			t.Errorf("%q: the user is %d", options, u)
		}
	}
	for _, tt := range []struct {
		m    host.MountEntry
		want bool
	}{
		{host.MountEntry{Options: "rw"}, false},
		{host.MountEntry{Options: "ro,user_id=0"}, true},
		{host.MountEntry{Options: "rw", ReadOnly: true}, true},
	} {
		if isReadOnly(tt.m) != tt.want {
			t.Errorf("%+v: want %v", tt.m, tt.want)
		}
	}
}

// What is not a mount of this program is refused before anything is done.
func TestRefusals(t *testing.T) {
	dir := t.TempDir()
	for path, want := range map[string]string{
		dir:           fmt.Sprintf("nothing is mounted on %q; fuse-overlay list shows the mounts", dir),
		dir + "/none": fmt.Sprintf("cannot open %q: %v; fuse-overlay list shows the mounts", dir+"/none", unix.ENOENT),
		"/proc":       `the mount on "/proc" is of type proc and not of this program; use umount`,
		"/proc/sys":   `nothing is mounted on "/proc/sys"; fuse-overlay list shows the mounts`,
	} {
		if err := Unmount([]string{path}, Options{}); err == nil || err.Error() != want {
			t.Errorf("%s: %v", path, err)
		}
	}
}
