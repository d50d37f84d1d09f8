package copyup

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// nameless counts how many nameless files f makes; with fail, none can be made.
func nameless(fail bool, f func()) (made int) {
	sys.SetFault(func(op sys.Op) error {
		if op.Call != "openat" || op.Name != "." {
			return nil
		}
		made++
		if fail {
			return unix.EIO
		}
		return nil
	})
	defer sys.SetFault(nil)
	f()
	return made
}

// What is prepared is what the next copy is made in, if it suits, and nothing is left of it.
func TestPreparedFiles(t *testing.T) {
	base := t.TempDir()
	s := newSite(t, base, base)
	if !s.work.trust.nameless {
		t.Fatal("no nameless files on the file system of temporary files")
	}
	fds, c, copies := openFDs(t), s.copier(), 0
	prepare := func(want bool) {
		t.Helper()
		if got := s.work.Prepare(); got != want {
			t.Errorf("after %d copies: prepared: %v, want %v", copies, got, want)
		}
	}
	copyOf := func(mode os.FileMode, made int) {
		t.Helper()
		name := fmt.Sprint("f", copies)
		copies++
		lower := filepath.Join(s.lowerPath, name)
		must(t, os.WriteFile(lower, []byte(name), mode))
		st := s.stat(t, name)
		if got := nameless(false, func() { must(t, s.copyUp(c, st, name)) }); got != made {
			t.Errorf("copy %d: %d nameless files made, want %d", copies, got, made)
		}
		if got, want := describe(t, filepath.Join(s.upperPath, name)), describe(t, lower); got != want {
			t.Errorf("copy %d:\n%s\nwant:\n%s", copies, got, want)
		}
	}
	prepare(false)
	copyOf(0o644, 1)
	prepare(true)
	prepare(false) // there is one
	copyOf(0o644, 0)
	copyOf(0o644, 1)
	prepare(true)
	copyOf(0o755, 1) // another mode
	prepare(true)
	copyOf(0o755, 0)

	prepare(true)
	s.work.Relax()
	if n := openFDs(t); n != fds {
		t.Errorf("%d descriptors, want %d", n, fds)
	}
	copyOf(0o755, 1)

	if made := nameless(true, func() { prepare(true) }); made != 1 {
		t.Errorf("%d nameless files were tried, want 1", made)
	}
	copyOf(0o755, 1)
	s.work.Relax()
	s.work.Relax()
	if n := openFDs(t); n != fds {
		t.Errorf("%d descriptors at the end, want %d", n, fds)
	}
	s.wantEmptyWork(t)
}
