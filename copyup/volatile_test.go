package copyup

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/sys"
	"github.com/fuse-overlay/fuse-overlay/internal/testkit"
)

const volatileTree = "dir incompat 0700\ndir incompat/volatile 0700\nfile incompat/volatile/dirty 0600"

func wantIncompat(t *testing.T, s *site, want string) {
	t.Helper()
	if got, err := Incompat(s.work.Dir()); err != nil || got != want {
		t.Errorf("incompatible by %q (%v), want %q", got, err, want)
	}
}

func TestVolatile(t *testing.T) {
	base := t.TempDir()
	s := newSite(t, base, base)
	wantIncompat(t, s, "")
	must(t, s.work.SetVolatile())
	testkit.Want(t, "the work directory", s.workPath, volatileTree)
	wantIncompat(t, s, "volatile")
	must(t, s.work.ClearVolatile())
	s.wantEmptyWork(t)
	wantIncompat(t, s, "")
}

// TestIncompat checks that every entry of incompat is a reason. An empty directory is none, and
// neither is an object of another type.
func TestIncompat(t *testing.T) {
	base := t.TempDir()
	for _, c := range []struct{ tree, want string }{
		{"dir incompat", ""}, {"file incompat", ""}, {"symlink incompat /", ""},
		{"dir incompat/volatile", "volatile"}, {"file incompat/future", "future"},
		{"dir incompat/volatile\ndir incompat/future", "future"}, {"dir incompat/a\ndir incompat/volatile", "a"},
	} {
		s := newSite(t, subdir(t, base), subdir(t, base))
		testkit.Build(t, s.workPath, c.tree)
		wantIncompat(t, s, c.want)
		if c.want == "" { // SetVolatile succeeds
			must(t, s.work.Sweep())
			must(t, s.work.SetVolatile())
			testkit.Want(t, "the work directory", s.workPath, volatileTree)
		}
	}
}

// TestEveryFaultOfVolatile fails each call of SetVolatile. The directory incompat must be whole or
// absent afterwards, and the next sweep must remove the rest.
func TestEveryFaultOfVolatile(t *testing.T) {
	for _, p := range plans {
		base := t.TempDir()
		s := newSite(t, base, base)
		for i := 0; ; i++ {
			n := 0
			sys.SetFault(func(sys.Op) error {
				n++
				if n-1 == i || p.kill && n-1 > i {
					return p.err
				}
				return nil
			})
			err := s.work.SetVolatile()
			sys.SetFault(nil)
			if n <= i {
				must(t, err)
				testkit.Want(t, "the work directory", s.workPath, volatileTree)
				break
			}
			if err != p.err {
				t.Fatalf("%s, call %d: %v", p.name, i, err)
			}
			wantIncompat(t, s, "")
			if !p.kill {
				s.wantEmptyWork(t)
			}
			must(t, s.work.Sweep())
			s.wantEmptyWork(t)
		}
	}
}

// TestFaultsOfClearVolatile checks that incompat stays if syncfs fails. It also checks that
// Incompat returns an error if it cannot read the directory.
func TestFaultsOfClearVolatile(t *testing.T) {
	base := t.TempDir()
	s := newSite(t, base, base)
	must(t, s.work.SetVolatile())
	var calls []string
	sys.SetFault(func(op sys.Op) error {
		calls = append(calls, op.Call)
		if op.Call == "syncfs" {
			return unix.EIO
		}
		return nil
	})
	err := s.work.ClearVolatile()
	sys.SetFault(nil)
	if err != unix.EIO || len(calls) != 1 {
		t.Errorf("%v after %v", err, calls)
	}
	wantIncompat(t, s, "volatile")
	for _, call := range []string{"openat2", "getdents64"} {
		sys.SetFault(func(op sys.Op) error {
			if op.Call == call {
				return unix.EIO
			}
			return nil
		})
		if reason, err := Incompat(s.work.Dir()); err != unix.EIO {
			t.Errorf("failing %s: %q, %v", call, reason, err)
		}
		sys.SetFault(nil)
	}
	must(t, os.RemoveAll(filepath.Join(s.workPath, IncompatDir)))
}
