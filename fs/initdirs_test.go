package fs

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// newWide is a site whose root has directories d0 to d19 in each of three lowers, and a file before
// and after them.
func newWide(t *testing.T, helped bool) *site {
	t.Helper()
	var lowers []string
	for l := range 3 {
		lower := []string{fmt.Sprint("file a", l), fmt.Sprint("file z", l)}
		for d := range 20 {
			lower = append(lower, fmt.Sprintf("file d%d/f%d", d, l), fmt.Sprintf("dir d%d/sub%d", d, l))
		}
		lowers = append(lowers, strings.Join(lower, "\n"))
	}
	s := newSite(t, "", lowers...)
	s.o.helped = helped
	return s
}

// A listing contains the same of new directories whether one or two threads have initialised them.
func TestTwoThreadsInitialiseDirectories(t *testing.T) {
	list := func(helped bool) string {
		s := newWide(t, helped)
		entries, err := s.list(1, 1<<14)
		must(t, err)
		var b strings.Builder
		for _, e := range entries {
			a := e.entry.Attr
			fmt.Fprintf(&b, "%s %d %d %#o %d\n", e.name, e.off, e.typ, a.Mode, a.Nlink)
			if e.entry.NodeId != 0 && (a.Ino != e.ino || e.ino == 0) {
				t.Errorf("%s has number %d, in the listing %d", e.name, a.Ino, e.ino)
			}
		}
		return b.String()
	}
	alone, helped := list(false), list(true)
	if alone != helped {
		t.Errorf("by one:\n%s\nby two:\n%s", alone, helped)
	}
	if n := strings.Count(helped, " 5\n"); n != 20 { // three subdirectories each
		t.Errorf("%d directories have five links, want 20:\n%s", n, helped)
	}
}

// Two are at it at the same time, also where there is one directory of many parts: the first waits
// in a system call until the second makes one.
func TestTwoSettleAtTheSameTime(t *testing.T) {
	t.Run("directories of a listing", func(t *testing.T) {
		s := newWide(t, true)
		wantTwo(t, 0, func() error { _, err := s.list(1, 1<<14); return err })
	})
	t.Run("parts of a directory", func(t *testing.T) {
		s := newSite(t, "", slices.Repeat([]string{"dir d/sub"}, minShared)...)
		s.o.helped = true
		// The first is looked at alone, to see whether d can be left unlisted.
		wantTwo(t, 1, func() error { _, err := s.lookup(1, "d"); return err })
	})
}

// wantTwo fails the test unless the directories with a name in d are opened by two at a time, but
// the first ones.
func wantTwo(t *testing.T, alone int, request func() error) {
	t.Helper()
	first, second := make(chan struct{}), make(chan struct{})
	var mu sync.Mutex
	opened := 0
	sys.SetFault(func(op sys.Op) error {
		if op.Call != "openat2" || !strings.HasPrefix(op.Name, "d") {
			return nil
		}
		mu.Lock()
		opened++
		n := opened - alone
		mu.Unlock()
		switch n {
		case 1:
			close(first)
			select {
			case <-second:
			case <-time.After(10 * time.Second):
				t.Error("nobody helps")
			}
		case 2:
			<-first
			close(second)
		}
		return nil
	})
	defer sys.SetFault(nil)
	must(t, request())
}

// A directory that cannot be initialised ends the listing before it. Neither it nor an entry behind
// it leaves a node.
func TestDirectoriesThatCannotBeInitialised(t *testing.T) {
	for _, helped := range []bool{false, true} {
		for what, fault := range map[string]func() error{
			"an error": func() error { return unix.EMFILE },
			"a panic":  func() error { panic("in a system call") },
		} {
			s := newWide(t, helped)
			sys.SetFault(func(op sys.Op) error {
				if op.Call == "openat2" && (op.Name == "d7" || op.Name == "d11") {
					return fault()
				}
				return nil
			})
			entries, err := s.list(1, 1<<14)
			sys.SetFault(nil)
			wanted := map[string]unix.Errno{"an error": unix.EMFILE, "a panic": unix.EIO}[what]
			want(t, what, err, wanted)
			for _, e := range entries {
				if e.name == "d7" || e.name == "d11" {
					t.Errorf("%s: %s is listed", what, e.name)
				}
			}
			s.forget(nil)
			if n := s.o.nodes.Len(); n != 1 {
				t.Errorf("%s: %d nodes are left", what, n-1)
			}
			if entries, err := s.list(1, 1<<14); err != nil || len(entries) != 2+6+20 {
				t.Errorf("%s: then %d entries, %v", what, len(entries), err)
			}
		}
	}
}

// What two have opened by a directory's own name is not taken for what a redirect leads to.
func TestTwoSettleWhatIsRedirected(t *testing.T) {
	lowers := slices.Repeat([]string{"file d/own\nfile was/moved"}, minShared)
	lowers[0] = "dir d\nxattr d trusted.overlay.redirect was"
	for what, meet := range map[string]func(*site) error{
		"a listing": func(s *site) error { _, err := s.list(1, 1<<14); return err },
		"a lookup":  func(s *site) error { _, err := s.lookup(1, "d"); return err },
	} {
		s := newSite(t, "", lowers...)
		s.o.helped = true
		must(t, meet(s))
		id, err := s.walk("d")
		must(t, err)
		entries, err := s.list(id, 1<<12)
		must(t, err)
		if len(entries) != 3 || entries[2].name != "moved" {
			t.Errorf("%s: d has %v", what, entries)
		}
		if text, err := s.read("d/moved"); err != nil || text != "" {
			t.Errorf("%s: d/moved reads %q, %v", what, text, err)
		}
	}
}
