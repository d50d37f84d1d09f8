package supervise

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// TestOpenObjects has objects open in every way over several deaths of the daemon: unlinked files
// of both layers, a file without a name, renamed and mapped files, a locked one, and a removed
// directory in which the process works.
func TestOpenObjects(t *testing.T) {
	harness.EachMode(t, modes, func(t *testing.T, e *harness.Env) {
		o := mounted(t, e, "file lower lower\nfile gone gone\nfile named named\ndir d\nfile d/f f\n")
		open := func(name string, flags int) *os.File {
			f, err := os.OpenFile(o.Path(name), flags, 0o644)
			harness.Check(t, err)
			t.Cleanup(func() { f.Close() })
			return f
		}
		write := func(f *os.File, text string) {
			t.Helper()
			_, err := f.WriteAt([]byte(text), 0)
			harness.Check(t, err)
		}
		want := func(f *os.File, text string) {
			t.Helper()
			got := make([]byte, 100)
			n, _ := f.ReadAt(got, 0)
			if string(got[:n]) != text {
				t.Errorf("%s: %q, want %q", f.Name(), got[:n], text)
			}
		}
		gone, named, made := open("gone", os.O_RDWR), open("named", os.O_RDWR), open("made", os.O_RDWR|os.O_CREATE)
		write(made, "made")
		harness.Check(t, unix.Unlink(o.Path("gone")))
		harness.Check(t, unix.Unlink(o.Path("made")))
		harness.Check(t, unix.Rename(o.Path("named"), o.Path("renamed")))
		nameless, err := unix.Open(o.Point, unix.O_TMPFILE|unix.O_RDWR, 0o644)
		harness.Check(t, err)
		temporary := os.NewFile(uintptr(nameless), "nameless")
		defer temporary.Close()
		write(temporary, "temporary")
		locked := open("lower", os.O_RDWR)
		harness.Check(t, unix.Flock(int(locked.Fd()), unix.LOCK_EX))
		mapped := open("d/f", os.O_RDWR)
		page, err := unix.Mmap(int(mapped.Fd()), 0, 1, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		harness.Check(t, err)
		defer func() { _ = unix.Munmap(page) }()
		harness.Mkdir(t, o.Path("removed"))
		removed := open("removed", os.O_RDONLY)
		harness.Check(t, unix.Rmdir(o.Path("removed")))
		var before unix.Stat_t
		harness.Check(t, unix.Stat(o.Path("renamed"), &before))

		for range 3 {
			kill(t, o)
			want(gone, "gone")
			want(made, "made")
			want(named, "named")
			want(temporary, "temporary")
			var st unix.Stat_t
			harness.Check(t, unix.Fstat(int(removed.Fd()), &st))
			if st.Nlink != 0 && e.Mode == harness.ModeRoot {
				t.Errorf("the removed directory has %d links", st.Nlink)
			}
			harness.Check(t, unix.Stat(o.Path("renamed"), &st))
			if st.Ino != before.Ino {
				t.Errorf("the inode number of a file has changed from %d to %d", before.Ino, st.Ino)
			}
			if other, err := os.Open(o.Path("lower")); err != nil {
				t.Error(err)
			} else {
				if err := unix.Flock(int(other.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != unix.EWOULDBLOCK {
					t.Errorf("the lock is not held: %v", err)
				}
				other.Close()
			}
		}
		write(gone, "GONE")
		want(gone, "GONE")
		write(made, "MADE")
		page[0] = 'F'
		harness.Check(t, unix.Msync(page, unix.MS_SYNC))
		kill(t, o)
		want(gone, "GONE")
		want(made, "MADE")
		harness.Check(t, unix.Linkat(unix.AT_FDCWD, fmt.Sprint("/proc/self/fd/", nameless), unix.AT_FDCWD, o.Path("linked"), unix.AT_SYMLINK_FOLLOW))
		text, err := os.ReadFile(o.Path("linked"))
		if string(text) != "temporary" {
			t.Errorf("linked: %q, %v", text, err)
		}
		text, err = os.ReadFile(filepath.Join(o.Upper, "d/f"))
		if string(text) != "F" {
			t.Errorf("the mapped file in the upper: %q, %v", text, err)
		}
	})
}

// TestPause measures how long a mount does not answer after the death of its daemon.
func TestPause(t *testing.T) {
	harness.EachMode(t, modes[:1], func(t *testing.T, e *harness.Env) {
		o := mounted(t, e, "file f f\n")
		var longest time.Duration
		for range 10 {
			pid := daemonOf(t, o)
			harness.Kill(pid, unix.SIGKILL)
			start := time.Now()
			harness.Check(t, os.WriteFile(o.Path("new"), []byte("text"), 0o644))
			longest = max(longest, time.Since(start))
			harness.WaitGone(pid, time.Second)
		}
		o.PID = 0
		t.Logf("the longest pause: %v", longest)
	})
}

// TestKilledSupervisor: another supervisor takes its place.
func TestKilledSupervisor(t *testing.T) {
	harness.EachMode(t, modes, func(t *testing.T, e *harness.Env) {
		o := mounted(t, e, "file f f\n")
		for range 2 {
			daemonOf(t, o)
			old := harness.SupervisorsOf(o.Point)[0]
			harness.Kill(old, unix.SIGKILL)
			if !harness.Eventually(5*time.Second, func() bool {
				now := harness.SupervisorsOf(o.Point)
				return len(now) == 1 && now[0] != old
			}) {
				t.Fatal("there is no other supervisor")
			}
			kill(t, o)
			if text, err := os.ReadFile(o.Path("f")); string(text) != "f" {
				t.Errorf("f: %q, %v", text, err)
			}
		}
	})
}
