package stack

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/sys"
	"github.com/fuse-overlay/fuse-overlay/internal/testkit"
)

// A work directory that a volatile mount has used is refused, and not changed, until
// incompat/volatile is removed.
func TestVolatile(t *testing.T) {
	s := newSite(t, "file f")
	must(t, s.MarkVolatile())
	s.shut()
	const left = "dir work 0700\ndir work/incompat 0700\ndir work/incompat/volatile 0700\nfile work/incompat/volatile/dirty 0600\nfile work/#1 \"staged\""
	testkit.Build(t, s.cfg.Work, `file work/#1 "staged"`)
	_, err := Open(s.cfg)
	want := fmt.Sprintf("workdir %q: was used by a volatile mount", s.cfg.Work)
	if err == nil || !strings.HasPrefix(err.Error(), want) || !strings.Contains(err.Error(), s.cfg.Work+"/work/incompat") {
		t.Errorf("got %v, want %s", err, want)
	}
	testkit.Want(t, "the work directory", s.cfg.Work, left)
	incompat := filepath.Join(s.cfg.Work, "work/incompat")
	s.cfg.AfterVolatile = true
	s.open()
	if !s.AfterVolatile() {
		t.Error("nobody is told that the mount before was volatile")
	}
	s.wantEmptyWork()
	s.shut()
	s.open()
	if s.AfterVolatile() {
		t.Error("the note is still there")
	}
	s.shut()
	must(t, os.Mkdir(incompat, 0o700))
	must(t, os.Mkdir(incompat+"/later", 0))
	_, err = Open(s.cfg) // which is refused in any case
	if want := `a mount with the feature "later", which is not known here (EINVAL)`; err == nil || !strings.HasSuffix(err.Error(), want) {
		t.Errorf("got %v, want %s", err, want)
	}
	must(t, os.Remove(incompat+"/later"))
	s.open()
	s.wantEmptyWork()
	must(t, s.MarkVolatile())
	must(t, s.UnmarkVolatile())
	s.shut()
	s.open()
}

// A work directory that holds a merge is refused, also by a mount that only reads.
func TestHalfMerged(t *testing.T) {
	s := newSite(t, "file f")
	s.shut()
	testkit.Build(t, s.cfg.Work, "dir work/incompat/merge")
	for _, cfg := range []Config{s.cfg, {Lowers: s.cfg.Lowers, Upper: s.cfg.Upper, Work: s.cfg.Work, ReadOnly: true}} {
		for _, cfg.AfterVolatile = range []bool{false, true} {
			if _, err := Open(cfg); !errors.Is(err, errHalfMerged) {
				t.Errorf("read-only %v: %v", cfg.ReadOnly, err)
			}
		}
	}
	testkit.Want(t, "the work directory", s.cfg.Work, "dir work 0700\ndir work/incompat\ndir work/incompat/merge")
	must(t, os.RemoveAll(filepath.Join(s.cfg.Work, "work/incompat")))
	s.open()
}

func TestVolatileFaults(t *testing.T) {
	s := newSite(t, "file f")
	refusing := func(call string, f func()) {
		sys.SetFault(func(op sys.Op) error {
			if op.Call == call {
				return unix.EIO
			}
			return nil
		})
		defer sys.SetFault(nil)
		f()
	}
	refusing("mkdirat", func() {
		want := "workdir: cannot note that the mount is volatile: input/output error"
		if err := s.MarkVolatile(); err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	})
	must(t, s.MarkVolatile())
	s.shut()
	refusing("getdents64", func() {
		if _, err := Open(s.cfg); err == nil || !strings.HasSuffix(err.Error(), "input/output error") {
			t.Errorf("a note that cannot be read: %v", err)
		}
	})
	must(t, os.RemoveAll(filepath.Join(s.cfg.Work, "work/incompat")))
	s.open()
}
