package fs

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// Names of one object are looked up, changed, linked and removed at once; they agree at any time.
func TestSharedObjectsTogether(t *testing.T) {
	var table strings.Builder
	const names = 8
	table.WriteString("file d0/f \"00000000\"\n")
	for i := 1; i < names; i++ {
		fmt.Fprintf(&table, "link d%d/f d0/f\n", i)
	}
	for range 30 {
		s := newLinked(t, table.String())
		fds := openFDs(t)
		var ready atomic.Int64
		s.together(names, func(k *kernel, worker int) {
			p := fmt.Sprintf("d%d/f", worker)
			for ready.Add(1); ready.Load() < names; {
			}
			fail := func(what string, err error) {
				if err != nil {
					t.Errorf("%s %s: %v", what, p, err)
				}
			}
			fail("write", k.write(p, uint64(worker), "1")())
			switch worker % 4 {
			case 1:
				fail("unlink", k.unlink(p)())
			case 2:
				fail("link", k.link(p, p+"2")())
			case 3:
				fail("rename", k.rename(p, p+"3", 0)())
			}
		})
		for range 2 {
			for _, p := range []string{"d0/f", "d2/f2", "d3/f3"} {
				if text, err := s.read(p); err != nil || text != "11111111" {
					t.Errorf("%s is %q, %v", p, text, err)
				}
			}
			s.auditLinks("together")
			s.wantConsistent(fds)
			s.remount()
			fds = openFDs(t)
		}
		s.shut()
	}
}

// TestSharedObjectCopiedUpMeanwhile looks a name up while another name of the object is written
// and forgotten. The lookup has found no copy in the index.
func TestSharedObjectCopiedUpMeanwhile(t *testing.T) {
	s := newLinked(t, linkedFiles)
	dir, err := s.walk("b")
	must(t, err)
	handles, isIndex := 0, false
	sys.SetFault(func(op sys.Op) error {
		switch {
		case op.Call == "name_to_handle_at":
			handles++
			isIndex = handles == 1
		case isIndex && op.Call == "fstatat": // of the copy's name in the index
			isIndex = false
			s.do(s.write("a/f", 0, "T"))
			s.forget(func(id uint64) bool { return id != dir })
			return unix.ENOENT
		}
		return nil
	})
	_, err = s.lookup(dir, "g")
	sys.SetFault(nil)
	must(t, err)
	if handles < 2 {
		t.Errorf("%d file handles were made: no copy-up met the lookup", handles)
	}
	s.do(s.write("b/g", 1, "E"))
	for _, p := range []string{"a/f", "b/g", "b/h"} {
		if text, err := s.read(p); err != nil || text != "TExt" {
			t.Errorf("%s is %q, %v", p, text, err)
		}
	}
	s.auditLinks("copied up during a lookup")
}
