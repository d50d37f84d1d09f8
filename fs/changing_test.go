package fs

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// Two states of a file are distinguished, unless both changes may lie within one step of the file
// system's clock.
func TestVersions(t *testing.T) {
	now := time.Now()
	state := func(age time.Duration, f func(*sys.Stat)) version {
		st := sys.Stat{Dev: 1, Ino: 2, Size: 3}
		st.Ctim = unix.NsecToTimespec(now.Add(-age).UnixNano())
		st.Mtim = st.Ctim
		f(&st)
		return versionOf(&st, now)
	}
	same := func(*sys.Stat) {}
	old := state(time.Hour, same)
	if old == (version{}) || old != state(time.Hour, same) {
		t.Error("an old file is not what it was")
	}
	for what, f := range map[string]func(*sys.Stat){
		"inode": func(st *sys.Stat) { st.Ino++ }, "device": func(st *sys.Stat) { st.Dev++ }, "size": func(st *sys.Stat) { st.Size++ },
		"mtime": func(st *sys.Stat) { st.Mtim.Nsec++ }, "ctime": func(st *sys.Stat) { st.Ctim.Nsec++ },
	} {
		if state(time.Hour, f) == old {
			t.Errorf("another %s is the same state", what)
		}
	}
	seconds := func(st *sys.Stat) { st.Ctim.Nsec, st.Mtim.Nsec = 0, 0 }
	if state(fineStep/2, same) != (version{}) || state(coarseStep/2, seconds) != (version{}) {
		t.Error("a file that has just been changed counts as known")
	}
	if state(2*fineStep, func(st *sys.Stat) { st.Ctim.Nsec |= 1 }) == (version{}) || state(2*coarseStep, seconds) == (version{}) {
		t.Error("a file that was changed some time ago counts as unknown")
	}
}

// Files that are open in the mount stay open here, up to a bound, and the handles do not look like
// those of direct I/O.
func TestPins(t *testing.T) {
	released := 0
	release := func(*held) { released++ }
	p := pins{maxHeld: 3}
	given := map[uint64]*held{}
	for range p.maxHeld {
		h := &held{}
		fh := p.add(h, release)
		if fh == 0 || fh&directHandle != 0 || given[fh] != nil {
			t.Fatalf("handle %d", fh)
		}
		given[fh] = h
	}
	if fh := p.add(&held{}, release); fh != 0 || released != 1 {
		t.Errorf("beyond the bound: handle %d, %d released", fh, released)
	}
	for fh, h := range given {
		if got := p.remove(fh | directHandle); got != h {
			t.Errorf("handle %d leads to another", fh)
		}
		if p.remove(fh) != nil {
			t.Errorf("handle %d is good twice", fh)
		}
	}
	if p.remove(0) != nil || p.remove(directHandle) != nil {
		t.Error("no handle is one")
	}
}
