package fs

import (
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// When the kernel has forgotten everything, nothing is left of it: no node, no handle, no
// descriptor.
func TestForgetOfEverything(t *testing.T) {
	s := newSite(t, "file a/f\ndir b\nwhite c", "file a/g \"text\"\nfile c\nfile e/f/g \"text\"\nlink e/h e/f/g")
	fds := openFDs(t)
	s.audit("looked at")
	s.do(s.write("a/g", 0, "x"))
	s.do(s.mknod("c", unix.S_IFREG|0o600, 0))
	s.do(s.link("e/f/g", "b/link"))
	s.do(s.link("e/f/g", "link"))
	s.do(s.rename("b", "d", 0))
	s.do(s.unlink("e/h"))
	s.do(s.rename("c", "a/f", 0))
	s.do(s.rename("a/f", "a/g", unix.RENAME_EXCHANGE))
	want(t, "rename of a lower directory", s.rename("e", "x", 0)(), unix.EXDEV)
	s.audit("changed")
	if s.o.nodes.Len() < 8 {
		t.Errorf("%d nodes", s.o.nodes.Len())
	}
	s.forget(nil)
	if n := s.o.nodes.Len(); n != 1 {
		t.Errorf("%d nodes are left", n-1)
	}
	if n := s.o.handles.Len(); n != 0 {
		t.Errorf("%d handles are left", n)
	}
	if n := openFDs(t); n != fds {
		t.Errorf("%d descriptors are left", n-fds)
	}
	s.audit("looked at again")
}

// In whatever order the kernel forgets, nothing is left.
func TestForgetInAnyOrder(t *testing.T) {
	for round := range 40 { // maps have another order each time
		s := newSite(t, "file a/f\nlink b/g a/f\nlink c/d/h a/f", "")
		s.audit("looked at")
		if round%2 == 0 {
			s.do(s.rename("a/f", "c/f", 0))
			s.do(s.unlink("b/g"))
		}
		s.forget(nil)
		if n := s.o.nodes.Len(); n != 1 {
			t.Fatalf("%d nodes are left", n-1)
		}
		s.shut()
	}
}

// The handles kept open have a bound, whatever is looked at.
func TestHandlesAreBounded(t *testing.T) {
	withoutRanks(t)
	var limit unix.Rlimit
	must(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &limit))
	const bound = 64
	small := unix.Rlimit{Cur: 4 * bound, Max: limit.Max}
	must(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &small))
	defer func() { must(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &limit)) }()
	var lower strings.Builder
	for i := range 600 {
		fmt.Fprintf(&lower, "file d%d/f \"%d\"\n", i, i)
	}
	s := newSite(t, "", lower.String())
	fds := openFDs(t)
	s.audit("all directories")
	s.view()
	for i := range 600 {
		s.do(s.write(fmt.Sprintf("d%d/f", i), 0, "x"))
	}
	if n := openFDs(t) - fds; n > bound {
		t.Errorf("%d descriptors more, want at most %d", n, bound)
	}
}
