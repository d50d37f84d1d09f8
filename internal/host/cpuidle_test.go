package host

import (
	"encoding/binary"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestCountCPUs(t *testing.T) {
	for list, want := range map[string]int{
		"0": 1, "0-1": 2, "0-3,6": 5, "0-3,8-11": 8, "": 0, "x": 0, "0-": 0, "3-1": 0,
	} {
		if got := countCPUs(list); got != want {
			t.Errorf("%q: %d CPUs, want %d", list, got, want)
		}
	}
	if n := OnlineCPUs(); n < 1 {
		t.Errorf("this machine has %d CPUs", n)
	}
}

// awake reports whether some process keeps idle CPUs awake.
func awake(t *testing.T) bool {
	t.Helper()
	f, err := os.Open(IdlePollFile)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	var b [4]byte
	if _, err := f.Read(b[:]); err != nil {
		t.Fatal(err)
	}
	return int32(binary.NativeEndian.Uint32(b[:])) == noLatency
}

// asleep waits until no process keeps idle CPUs awake. Mounts of other tests may, for a while.
func asleep(t *testing.T, when string) {
	t.Helper()
	for range 3000 {
		if !awake(t) {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("%s: idle CPUs stay awake", when)
}

func TestIdlePoll(t *testing.T) {
	p, err := OpenIdlePoll()
	if err != nil {
		if unix.Access(IdlePollFile, unix.W_OK) == nil {
			t.Fatal(err)
		}
		return // only root may open it
	}
	asleep(t, "after opening")
	for range 2 {
		if err := p.KeepAwake(); err != nil || !awake(t) {
			t.Errorf("asking for it: %v, and idle CPUs sleep", err)
		}
		if err := p.LetSleep(); err != nil {
			t.Error(err)
		}
		asleep(t, "after taking it back")
	}
	if err := p.KeepAwake(); err != nil || !awake(t) {
		t.Errorf("asking again: %v, and idle CPUs sleep", err)
	}
	p.Close()
	asleep(t, "after the end")
	p.fd = -1
	if err := p.KeepAwake(); err != unix.EBADF {
		t.Errorf("asking after the end: %v, want EBADF", err)
	}
}
