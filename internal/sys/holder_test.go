package sys

import (
	"os"
	"os/exec"
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
		if _, ok := d.Holder(); ok {
			t.Error("the holder takes itself for another one")
		}
		d.Close()
		if h, ok := b.Holder(); ok {
			t.Errorf("after its end: %+v", h)
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
