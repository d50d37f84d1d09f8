package merge

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/copyup"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
	"github.com/fuse-overlay/fuse-overlay/internal/testkit"
	"github.com/fuse-overlay/fuse-overlay/internal/testkit/systest"
)

// wantBetween fails the test unless the layers show what they did, or no mount takes the upper.
func wantBetween(s *site, before string, err error) {
	s.t.Helper()
	work, errOpen := sys.OpenForChanges(filepath.Join(s.Work, "work"))
	reason := ""
	if errOpen == nil {
		defer work.Close()
		var errRead error
		reason, errRead = copyup.Incompat(work)
		must(s.t, errRead)
	}
	var incomplete *IncompleteError
	switch {
	case reason == copyup.Merge:
	case reason != "":
		s.t.Errorf("the work directory is refused for %q", reason)
	default:
		if deep, _ := filepath.Glob(filepath.Join(s.Work, "work", buildName, "*", "*")); len(deep) > 0 {
			s.t.Errorf("the kernel's overlayfs cannot remove %v", deep)
		}
		if diff := testkit.Diff(before, s.shown()); diff != "" {
			s.t.Errorf("the view has changed, %v:\n%s", err, diff)
		}
	}
	if begun := errors.As(err, &incomplete); begun != (reason == copyup.Merge) && reason == copyup.Merge {
		s.t.Errorf("the error %v does not report that the merge has begun", err)
	}
}

// rich are layers with many kinds of changes: each of them meets each failing call.
var rich = []struct {
	name, upper string
	lowers      []string
}{
	{"one lower", `
		file new/a "1"
		link new/b new/a
		symlink new/l x
		file changed "new"
		white gone
		opaque op
		file op/same
		file type
		dir r
		xattr r trusted.overlay.redirect /old
		white old
		file r/in
		file meta 0600
		size meta 3
		xattr meta trusted.overlay.metacopy ""
		file cut
		size cut 2
		xattr cut trusted.overlay.metacopy ""
		xattr . trusted.overlay.impure y`,
		[]string{"file changed\nfile gone/a\nfile op/same\nfile op/x\nfile type/deep\nfile old/in\nfile old/f\nfile meta \"abc\"\nfile cut \"abc\""}},
	{"two lowers", "white a\nfile e/new\nwhite e/x\ndir n\nxattr n " + redirect + "/o\nwhite o\ndir f\nfile .wh.m",
		[]string{"file a\nfile o/a\nfile f\nfile m", "file a\nfile e/x\nfile o/b\nfile f/g\nfile m"}},
}

// At each system call the process may end, or the call may fail. Then the view is that of before,
// or no mount takes the upper. A second merge completes the work.
func TestEndAtEachCall(t *testing.T) {
	fds := testkit.OpenFDs(t)
	for _, tt := range rich {
		t.Run(tt.name, func(t *testing.T) {
			t.Run("renames", func(t *testing.T) { endAtEach(t, tt.upper, tt.lowers, func(*site) {}, 1) })
			t.Run("copies", func(t *testing.T) { endAtEach(t, tt.upper, tt.lowers, bindLower, 2) })
		})
	}
	if now := testkit.OpenFDs(t); now != fds {
		t.Errorf("%d descriptors are open, %d were", now, fds)
	}
}

// endAtEach has a merge end at each step-th call, and one call fail alone, less often: most errors
// end the merge as well.
func endAtEach(t *testing.T, upper string, lowers []string, prepare func(*site), step int) {
	t.Helper()
	for _, all := range []bool{true, false} {
		if !all {
			step *= 4
		}
		first := 0
		for endAt(t, upper, lowers, prepare, first, all) {
			first += step
		}
		if first < 50 {
			t.Errorf("the merge makes %d calls", first)
		}
	}
}

// endAt merges layers, of which the call first fails, and with all each later one. It reports
// whether there are that many calls.
func endAt(t *testing.T, upper string, lowers []string, prepare func(*site), first int, all bool) bool {
	t.Helper()
	s := newSite(t, upper, lowers...)
	prepare(s)
	defer unbindLower(s)
	before := s.shown()
	m, err := s.open()
	must(t, err)
	_, err = s.plan(m)
	must(t, err)
	n := -1
	systest.While(func(sys.Op) bool { n++; return n == first || all && n > first }, unix.EIO, func() { err = m.Run() })
	m.Close()
	if err != nil {
		wantBetween(s, before, err)
	}
	if err := s.merge(); err != nil {
		t.Fatalf("call %d, all %v: the second merge: %v", first, all, err)
	}
	wantEmpty(s)
	if diff := testkit.Diff(before, s.shown()); diff != "" {
		t.Fatalf("call %d, all %v: the view has changed:\n%s", first, all, diff)
	}
	return n >= first
}

// interruptCommitted merges, and interrupts that directly after the commit.
func interruptCommitted(s *site) {
	s.t.Helper()
	m, err := s.open()
	must(s.t, err)
	defer m.Close()
	_, err = s.plan(m)
	must(s.t, err)
	committed := false
	systest.While(func(op sys.Op) bool {
		if committed {
			return true
		}
		committed = op.Call == "renameat2" && op.Name == copyup.IncompatDir
		return false
	}, unix.EIO, func() { err = m.Run() })
	var incomplete *IncompleteError
	if !errors.As(err, &incomplete) {
		s.t.Fatalf("the merge was not interrupted: %v", err)
	}
}

// Another start of the machine may give the file system another device number.
func TestCompletedOnAnotherDevice(t *testing.T) {
	image := testkit.MakeImage(t, "mkfs.ext4")
	first := testkit.Mount(t, "ext4", image, "loop")
	t.Setenv("TMPDIR", first)
	t.Run("", func(t *testing.T) {
		s := newSite(t, rich[0].upper, rich[0].lowers...)
		before := s.shown()
		interruptCommitted(s)
		second := first + "/second"
		testkit.Run(t, "sync", "-f", first)
		testkit.Run(t, "cp", "--sparse=always", image, image+"2")
		testkit.MountAt(t, "ext4", image+"2", second, "loop")
		for _, path := range []*string{&s.Upper, &s.Work, &s.Lowers[0]} {
			*path = second + strings.TrimPrefix(*path, first)
		}
		must(t, s.merge())
		wantEmpty(s)
		if diff := testkit.Diff(before, s.shown()); diff != "" {
			t.Errorf("the view has changed:\n%s", diff)
		}
	})
}

// A merge that was begun can be interrupted at each call of its completion as well.
func TestEndOfTheSecond(t *testing.T) {
	tt := rich[0]
	for first := 0; ; first += 7 {
		s := newSite(t, tt.upper, tt.lowers...)
		before := s.shown()
		interruptCommitted(s)
		m, err := s.open()
		must(t, err)
		if !m.Begun() {
			t.Fatal("the merge has not begun")
		}
		n := -1
		systest.While(func(sys.Op) bool { n++; return n >= first }, unix.EIO, func() { err = m.Run() })
		m.Close()
		must(t, s.merge())
		if diff := testkit.Diff(before, s.shown()); diff != "" {
			t.Fatalf("call %d: the view has changed:\n%s", first, diff)
		}
		if err == nil {
			return
		}
	}
}

// A full disk is an error before anything changes.
func TestFullDisk(t *testing.T) {
	eachWay(t, func(t *testing.T, prepare func(*site)) {
		s := newSite(t, "file a \"1\"\nfile g 0600\nsize g 3\nxattr g "+metacopy+"\"\"\nxattr g "+redirect+"/g\nlink h g\nfile d/new", "file g \"abc\"")
		prepare(s)
		before, lower := s.shown(), testkit.Snapshot(t, s.Lowers[0])
		for _, call := range []string{"pwrite64", "mkdirat", "openat", "linkat"} {
			m, err := s.open()
			must(t, err)
			_, err = s.plan(m)
			must(t, err)
			// openat reads as well: only what makes objects fails.
			systest.While(func(op sys.Op) bool { return op.Call == call && op.Name != "." && m.list != nil && !m.committed }, unix.ENOSPC, func() { err = m.Run() })
			m.Close()
			var incomplete *IncompleteError
			if !errors.Is(err, unix.ENOSPC) || errors.As(err, &incomplete) {
				t.Errorf("%s: %v", call, err)
			}
			if diff := testkit.Diff(before, s.shown()); diff != "" {
				t.Errorf("%s: the view has changed:\n%s", call, diff)
			}
			if diff := testkit.Diff(lower, testkit.Snapshot(t, s.Lowers[0])); diff != "" {
				t.Errorf("%s: the lower has changed:\n%s", call, diff)
			}
		}
		must(t, s.merge())
		s.wantShown("the view has changed", before)
	})
}

// After an error nothing is left of a copy.
func TestFaultsOfInto(t *testing.T) {
	s := newSite(t, rich[0].upper, rich[0].lowers...)
	target := filepath.Join(t.TempDir(), "copy")
	for first := 0; ; first += 3 {
		n := -1
		var err error
		systest.While(func(op sys.Op) bool {
			if op.Call == "open_tree" {
				return true
			}
			n++
			return n == first
		}, unix.EIO, func() { err = Into(s.config(), target, func() {}) })
		if err == nil && n < first {
			return
		}
		if err == nil { // a call whose error does not matter
			must(t, os.RemoveAll(target))
			continue
		}
		if left, _ := os.ReadDir(filepath.Dir(target)); len(left) > 0 {
			t.Fatalf("call %d: %v is left after %v", first, left, err)
		}
	}
}
