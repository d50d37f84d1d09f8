package copyup

import (
	"os"
	"path/filepath"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

func TestNamesAreUnique(t *testing.T) {
	var w Work
	var seen sync.Map
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 1000 {
				name := w.Name()
				if _, twice := seen.LoadOrStore(name, true); twice {
					t.Errorf("Name returned %s twice", name)
				}
			}
		})
	}
	all.Wait()
}

// TestSweep checks that a sweep removes every object in the work directory, and none outside.
func TestSweep(t *testing.T) {
	t.Run("types in listings", func(t *testing.T) { sweepAll(t, t.TempDir()) })
	t.Run("no types in listings", func(t *testing.T) { sweepAll(t, mountFS(t, "ext4", "")) })
}

func sweepAll(t *testing.T, base string) {
	s := newSite(t, base, base)
	in := func(name string) string { return filepath.Join(s.workPath, name) }
	outside := filepath.Join(base, "outside")
	must(t, os.MkdirAll(filepath.Join(outside, "d"), 0o755))
	must(t, os.WriteFile(filepath.Join(outside, "f"), []byte("stays"), 0o600))

	// The sweep itself would use these names next.
	must(t, os.MkdirAll(in("#1/a/b"), 0o755))
	must(t, os.MkdirAll(in("#2/a/b"), 0o755))
	must(t, os.WriteFile(in("#3"), nil, 0o600))
	must(t, os.WriteFile(in("#ffffffff"), nil, 0o600))
	must(t, os.WriteFile(in("another name"), nil, 0o000))
	must(t, os.Symlink(outside, in("#4")))
	must(t, os.Symlink(outside, in("#1/a/link")))
	must(t, unix.Mknod(in("#1/whiteout"), unix.S_IFCHR, 0))
	must(t, unix.Mkfifo(in("#1/a/fifo"), 0o600))
	must(t, unix.Mknod(in("#5"), unix.S_IFSOCK|0o600, 0))
	must(t, os.Chmod(in("#2/a"), 0o000))

	must(t, s.work.Sweep())
	s.wantEmptyWork(t)
	if data, err := os.ReadFile(filepath.Join(outside, "f")); err != nil || string(data) != "stays" {
		t.Errorf("outside: %q, %v", data, err)
	}
	if _, err := os.Stat(filepath.Join(outside, "d")); err != nil {
		t.Error(err)
	}
	if name := s.work.Name(); len(name) < 9 {
		t.Errorf("the next name, %s, may be that of an object that a failed sweep left", name)
	}
}

// TestRemoveDeepTree removes a tree that is deeper than PATH_MAX, and deeper than the limit of
// descriptors.
func TestRemoveDeepTree(t *testing.T) {
	base := mountFS(t, "tmpfs", "") // on ext4 it takes seconds to make such a tree
	s := newSite(t, base, base)
	const depth = 3000
	must(t, os.Mkdir(filepath.Join(s.workPath, "#1"), 0o755))
	d, err := s.work.Dir().OpenDir("#1")
	must(t, err)
	for range depth {
		must(t, d.Mkdir("directory", 0o755))
		must(t, d.Mkdir("empty", 0o755))
		next, err := d.OpenDir("directory")
		must(t, err)
		d.Close()
		d = next
	}
	d.Close()
	var old unix.Rlimit
	must(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &old))
	must(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 64, Max: old.Max}))
	defer func() { must(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &old)) }()
	s.work.last.Store(1)
	must(t, s.work.Remove("#1"))
	must(t, s.work.Remove("#1"))
	s.wantEmptyWork(t)
}

// TestSweepAsUser checks that a sweep of a plain user removes directories without permissions for
// their owner.
func TestSweepAsUser(t *testing.T) {
	base := openTo(t, 1000)
	s := newSite(t, base, base)
	chownTree(t, base, 1000)
	asUser(t, 1000, func() {
		w := s.work.Dir()
		for _, mode := range []uint32{0o000, 0o555, 0o300, 0o700} {
			name := s.work.Name()
			check(t, w.Mkdir(name, 0o700))
			d, err := w.OpenDir(name)
			check(t, err)
			check(t, d.Mkdir("inside", 0o700))
			in, err := d.OpenDir("inside")
			check(t, err)
			check(t, in.Mkdir("deep", 0o000))
			check(t, in.Ref().Chmod(mode))
			check(t, d.Ref().Chmod(mode))
			in.Close()
			d.Close()
		}
		check(t, s.work.Sweep())
	})
	s.wantEmptyWork(t)
}

// TestSweepDropsDefaultACL checks that copies do not inherit a default ACL of the work directory.
func TestSweepDropsDefaultACL(t *testing.T) {
	base := t.TempDir()
	s := newSite(t, base, base)
	setXattr(t, s.workPath, "system.posix_acl_default", aclValue())
	must(t, os.WriteFile(filepath.Join(s.lowerPath, "f"), nil, 0o664))
	must(t, s.work.Sweep())
	must(t, s.copyUp(s.copier(), s.stat(t, "f"), "f"))
	if names := xattrsOf(t, filepath.Join(s.upperPath, "f")); len(names) > 0 {
		t.Errorf("the copy has %v", names)
	}
	failing(call("getxattr"), unix.EOPNOTSUPP, func() { must(t, s.work.Sweep()) })
	failing(call("getxattr"), unix.EIO, func() {
		if err := s.work.Sweep(); err != unix.EIO {
			t.Errorf("sweep: %v, want EIO", err)
		}
	})
}

func TestRemoveReturnsErrors(t *testing.T) {
	base := t.TempDir()
	s := newSite(t, base, base)
	must(t, os.MkdirAll(filepath.Join(s.workPath, "#1/d"), 0o755))
	for _, c := range []string{"fstatat", "rmdir", "fchmodat2", "openat2", "getdents64", "renameat"} {
		failing(call(c), unix.EIO, func() {
			if err := s.work.Remove("#1"); err != unix.EIO {
				t.Errorf("remove, failing %s: %v", c, err)
			}
		})
	}
	s.work.last.Store(1)
	must(t, s.work.Remove("#1"))
	s.wantEmptyWork(t)
}
