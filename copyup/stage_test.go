package copyup

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// TestKinds copies every kind of object up, and compares data and metadata. The parent must keep
// its times, and nothing else may be left.
func TestKinds(t *testing.T) {
	for _, k := range kinds() {
		t.Run(k.name, func(t *testing.T) {
			base := t.TempDir()
			s := newSite(t, base, base)
			lower, upper := filepath.Join(s.lowerPath, k.name), filepath.Join(s.upperPath, k.name)
			k.build(t, lower)
			want, fds := describe(t, lower), openFDs(t)
			var wantStat, stat, before, after unix.Stat_t
			must(t, unix.Lstat(lower, &wantStat))
			past := []unix.Timespec{{Sec: 5, Nsec: 6}, {Sec: 7, Nsec: 8}}
			must(t, unix.UtimesNanoAt(unix.AT_FDCWD, s.upperPath, past, 0))
			must(t, unix.Lstat(s.upperPath, &before))

			must(t, s.copyUp(s.copier(), s.stat(t, k.name), k.name))

			must(t, unix.Lstat(upper, &stat))
			must(t, unix.Lstat(s.upperPath, &after))
			if stat.Atim != wantStat.Atim {
				t.Errorf("atime is %v, want %v", stat.Atim, wantStat.Atim)
			}
			if got := describe(t, upper); got != want {
				t.Errorf("upper:\n%s\nwant:\n%s", got, want)
			}
			if after.Mtim != before.Mtim || after.Atim != before.Atim {
				t.Errorf("times of the parent are %v %v, want %v %v", after.Atim, after.Mtim, before.Atim, before.Mtim)
			}
			if n := openFDs(t); n != fds {
				t.Errorf("%d descriptors, want %d", n, fds)
			}
			s.wantEmptyWork(t)
		})
	}
}

// TestSize checks the size and the data of a copy for different amounts. For First(0) the copy-up
// must not open the source. A copy of another size has a new mtime when it is published, because a
// power cut may come before any further change of it.
func TestSize(t *testing.T) {
	base := t.TempDir()
	s := newSite(t, base, base)
	const full = 10_000
	data := pattern(full)
	must(t, os.WriteFile(filepath.Join(s.lowerPath, "f"), data, 0o600))
	must(t, os.Chtimes(filepath.Join(s.lowerPath, "f"), time.Unix(1000, 0), time.Unix(1000, 0)))
	st, c := s.stat(t, "f"), s.copier()
	for _, amount := range []Amount{
		Whole(), First(0), First(1), First(4096), First(full - 1), First(full), First(full + 5000),
	} {
		var staged *Staged
		ops := calls(func() {
			var err error
			staged, err = c.Stage(asIs(s.lower.At("f")), st, Data{Amount: amount})
			must(t, err)
		})
		want := make([]byte, amount.size)
		copy(want, data)
		if amount == Whole() {
			want = data
		}
		got := make([]byte, len(want)+1)
		n, err := staged.File().Pread(got, 0)
		must(t, err)
		if !slices.Equal(got[:n], want) {
			t.Errorf("%+v: %d bytes, not what was wanted", amount, n)
		}
		opened := count(ops, func(op sys.Op) bool { return op == sys.Op{Call: "openat", Name: "f"} })
		if amount == First(0) && opened > 0 {
			t.Errorf("size 0 opened the source")
		}
		var copied sys.Stat
		must(t, staged.File().Ref().Stat(&copied))
		if isOld := copied.Mtim.Sec == 1000; isOld != (len(want) == full) {
			t.Errorf("%+v: mtime %v", amount, copied.Mtim)
		}
		staged.Discard()
	}
	s.wantEmptyWork(t)

	// The copy-up does not open an empty source either: it has no permissions here.
	must(t, os.WriteFile(filepath.Join(s.lowerPath, "e"), nil, 0o000))
	staged, err := c.Stage(asIs(s.lower.At("e")), s.stat(t, "e"), Data{Amount: First(77)})
	must(t, err)
	var got sys.Stat
	must(t, staged.File().Ref().Stat(&got))
	if got.Size != 77 {
		t.Errorf("size %d, want 77", got.Size)
	}
	staged.Discard()
}

func TestPublish(t *testing.T) {
	t.Run("O_TMPFILE", func(t *testing.T) { publish(t, mountFS(t, "ext4", ""), "linkat", nil) })
	t.Run("by name", func(t *testing.T) {
		publish(t, mountFS(t, "tmpfs", ""), "renameat2", nil, unix.EINVAL, unix.ENOSYS) // also without its flags
	})
}

// publish publishes copies on a file system where the call named by does it. refusals are the
// errors of the first such call; nil: it succeeds.
func publish(t *testing.T, base, by string, refusals ...error) {
	s := newSite(t, base, base)
	c := s.copier()
	must(t, os.WriteFile(filepath.Join(s.lowerPath, "f"), []byte("lower"), 0o600))
	stage := func() *Staged {
		staged, err := c.Stage(asIs(s.lower.At("f")), s.stat(t, "f"), Data{Amount: Whole()})
		must(t, err)
		return staged
	}

	// After Publish, Discard neither closes the file nor removes its name.
	staged := stage()
	ops := calls(func() { must(t, staged.Publish(s.upper, "f")) })
	if count(ops, call(by)) != 1 {
		t.Errorf("published by %v, want one %s", ops, by)
	}
	staged.Discard()
	_, err := staged.File().Pwrite([]byte("U"), 0)
	must(t, err)
	staged.File().Close()
	if data, err := os.ReadFile(filepath.Join(s.upperPath, "f")); err != nil || string(data) != "Uower" {
		t.Errorf("published %q, %v", data, err)
	}

	// Publish does not replace an object.
	for _, refuse := range refusals {
		first := func() func(sys.Op) bool {
			seen := false
			return func(op sys.Op) bool { is := op.Call == by && !seen; seen = seen || is; return is }
		}
		staged := stage()
		failing(first(), refuse, func() {
			if err := staged.Publish(s.upper, "f"); err != unix.EEXIST {
				t.Errorf("publish over a name: %v, want EEXIST", err)
			}
			staged.Discard()
		})
		staged = stage()
		failing(first(), refuse, func() { must(t, staged.Publish(s.upper, "g")) })
		staged.File().Close()
		must(t, os.Remove(filepath.Join(s.upperPath, "g")))
	}
	s.wantEmptyWork(t)
}

// TestOrphan checks that an orphan has no name, and that a process can read and write it.
func TestOrphan(t *testing.T) {
	t.Run("O_TMPFILE", func(t *testing.T) { orphan(t, mountFS(t, "ext4", "")) })
	t.Run("by name", func(t *testing.T) {
		s := orphan(t, mountFS(t, "tmpfs", ""))
		staged, err := s.copier().Stage(asIs(s.lower.At("f")), s.stat(t, "f"), Data{Amount: Whole()})
		must(t, err)
		failing(call("unlinkat"), unix.EIO, func() {
			if _, err := staged.Orphan(); err != unix.EIO {
				t.Errorf("orphan: %v, want EIO", err)
			}
		})
		staged.Discard()
		s.wantEmptyWork(t)
	})
}

func orphan(t *testing.T, base string) *site {
	s := newSite(t, base, base)
	must(t, os.WriteFile(filepath.Join(s.lowerPath, "f"), []byte("lower"), 0o600))
	must(t, os.Mkdir(filepath.Join(s.lowerPath, "d"), 0o755))
	c := s.copier()
	staged, err := c.Stage(asIs(s.lower.At("f")), s.stat(t, "f"), Data{Amount: Whole()})
	must(t, err)
	f, err := staged.Orphan()
	must(t, err)
	staged.Discard()
	defer f.Close()
	s.wantEmptyWork(t)
	_, err = f.Pwrite([]byte("L"), 0)
	must(t, err)
	buf := make([]byte, 9)
	if n, err := f.Pread(buf, 0); err != nil || string(buf[:n]) != "Lower" {
		t.Errorf("read %q, %v", buf[:n], err)
	}
	var st sys.Stat
	if must(t, f.Ref().Stat(&st)); st.Nlink != 0 {
		t.Errorf("%d names", st.Nlink)
	}

	dir, err := c.Stage(asIs(s.lower.At("d")), s.stat(t, "d"), Data{Amount: Whole()})
	must(t, err)
	if _, err := dir.Orphan(); err != unix.EINVAL {
		t.Errorf("orphan of a directory: %v", err)
	}
	dir.Discard()
	s.wantEmptyWork(t)
	return s
}

// TestStageErrors checks that Stage returns the error, and leaves nothing in the work directory.
func TestStageErrors(t *testing.T) {
	base := t.TempDir()
	s := newSite(t, base, base)
	c := s.copier()
	f := filepath.Join(s.lowerPath, "f")
	must(t, os.WriteFile(f, []byte("x"), 0o600))
	st := s.stat(t, "f")
	check := func(what string, err, want error) {
		t.Helper()
		if !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", what, err, want)
		}
		s.wantEmptyWork(t)
	}
	_, err := c.Stage(asIs(s.lower.At("gone")), st, Data{Amount: Whole()})
	check("source removed", err, unix.ENOENT)
	_, err = c.Stage(asIs(s.lower.At("../f")), st, Data{Amount: Whole()})
	check("name with a slash", err, unix.EINVAL)

	must(t, os.Remove(f))
	must(t, unix.Mkfifo(f, 0o600))
	_, err = c.Stage(asIs(s.lower.At("f")), st, Data{Amount: Whole()})
	check("file that became a fifo", err, unix.ENXIO)

	st.Mode = 0o644
	_, err = c.Stage(asIs(s.lower.At("f")), st, Data{Amount: Whole()})
	check("object without a type", err, unix.EINVAL)

	st.Mode = unix.S_IFLNK | 0o777
	_, err = c.Stage(asIs(s.lower.At("f")), st, Data{Amount: Whole()})
	check("symlink that became a fifo", err, unix.EINVAL)
}
