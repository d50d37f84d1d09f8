package sys

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/host"
)

// What one holder publishes is read through any other descriptor of the directory, and ends with
// the holder's.
func TestHolder(t *testing.T) {
	path := t.TempDir()
	a, b := openPlain(t, path), openPlain(t, path)
	if h, ok := b.Holder(); ok {
		t.Fatalf("nobody holds it, but %+v does", h)
	}
	for _, want := range []Holder{
		{Dev: unix.Mkdev(0, 123), Mount: 1<<32 - 1, PID: 4567, PIDNamespace: 4026531836, MountNamespace: 4026531841},
		{Dev: unix.Mkdev(4095, 1<<20-1), PID: 1<<22 - 1, PIDNamespace: 1<<32 - 1, MountNamespace: 1<<32 - 1},
		{},
	} {
		d, err := a.OpenDir("")
		must(t, err)
		must(t, d.Lock())
		must(t, d.Publish(want))
		if got, ok := b.Holder(); !ok || got != want {
			t.Errorf("published %+v, read %+v, %v", want, got, ok)
		}
		if got, ok := ParseHolder(published(t, d)); !ok || got != want {
			t.Errorf("published %+v, /proc/locks has %+v, %v", want, got, ok)
		}
		if _, ok := d.Holder(); ok {
			t.Error("the holder takes itself for another one")
		}
		d.Close()
		if h, ok := b.Holder(); ok {
			t.Errorf("after its end: %+v", h)
		}
	}
}

// published returns the positions of the byte-range locks on a directory that /proc/locks has.
func published(t *testing.T, d *Dir) (positions []int64) {
	t.Helper()
	var st unix.Stat_t
	must(t, unix.Fstat(d.fd, &st))
	locks, err := host.FileLocks()
	must(t, err)
	suffix := fmt.Sprintf(":%d", st.Ino)
	for _, l := range locks {
		if l.Kind == "OFDLCK" && strings.HasSuffix(l.Inode, suffix) {
			positions = append(positions, l.Start)
		}
	}
	return positions
}

// Locks that other processes have for other reasons are no Holder.
func TestParseHolderRefuses(t *testing.T) {
	at := func(field, value int64) int64 { return field<<fieldShift | value }
	whole := []int64{at(1, 5), at(2, 6), at(3, 7), at(4, 8), at(5, 9)}
	if h, ok := ParseHolder(whole); !ok || h.PID != 7 || h.Mount != 6 {
		t.Fatalf("a Holder: %+v, %v", h, ok)
	}
	for what, list := range map[string][]int64{
		"nothing": nil, "a part": whole[:4], "one twice": append([]int64{at(3, 8)}, whole...),
		"another field": append([]int64{at(6, 1)}, whole...), "a plain lock": append([]int64{0}, whole...),
		"a bit between": {at(1, 1<<32), whole[1], whole[2], whole[3], whole[4]},
	} {
		if h, ok := ParseHolder(list); ok {
			t.Errorf("%s: %+v", what, h)
		}
	}
}

func TestSelf(t *testing.T) {
	h := Self(host.Place{Namespace: 8, Mount: host.MountEntry{Dev: 7, ID: 6, Point: "/a"}})
	if _, ok := h.Find([]host.MountEntry{{ID: 6, Dev: 7, Point: "/b"}, {ID: 5, Dev: 7, Point: "/a"}, {ID: 6, Dev: 8, Point: "/a"}}); ok {
		t.Error("another mount is taken for the holder's")
	}
	if m, ok := h.Find([]host.MountEntry{{ID: 1}, {ID: 6, Dev: 7, Point: "/a", Type: "fuse.x"}}); !ok || m.Type != "fuse.x" {
		t.Errorf("the holder's mount is %+v, %v", m, ok)
	}
	if h.MountNamespace != 8 || h.KnownPID() != os.Getpid() || h.Dev != 7 {
		t.Errorf("this process: %+v", h)
	}
	h.PIDNamespace++
	if h.KnownPID() != 0 {
		t.Errorf("another one: %+v", h)
	}
}

// SignalHolder signals a holder, but not one that no longer has the lock.
func TestSignalHolder(t *testing.T) {
	path := t.TempDir()
	a, b := openPlain(t, path), openPlain(t, path)
	must(t, a.Lock())
	sleeper := exec.Command("sleep", "100")
	must(t, sleeper.Start())
	h := Self(host.Place{Namespace: 1, Mount: host.MountEntry{Dev: 5}})
	h.PID = sleeper.Process.Pid
	must(t, a.Publish(h))
	other := h
	other.Dev++
	if err := b.SignalHolder(other); err != unix.ESRCH {
		t.Errorf("a holder that is none: %v", err)
	}
	must(t, b.SignalHolder(h))
	state, err := sleeper.Process.Wait()
	must(t, err)
	if status, ok := state.Sys().(interface{ Signal() unix.Signal }); !ok || status.Signal() != unix.SIGUSR2 {
		t.Errorf("the holder ended by %v", state)
	}
	must(t, a.Unlock())
	if _, ok := b.Holder(); ok {
		t.Error("unlocked, it is published")
	}
	must(t, b.Lock())
}
