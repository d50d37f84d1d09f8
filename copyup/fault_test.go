package copyup

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/sys"
	"github.com/fuse-overlay/fuse-overlay/internal/testkit"
)

// plan fails one system call. With kill it fails all later ones too, as if the daemon were killed.
type plan struct {
	name string
	kill bool
	err  error
}

var plans = []plan{
	{"EIO once", false, unix.EIO},
	{"ENOSPC once", false, unix.ENOSPC},
	{"kill", true, unix.EIO},
	{"disk full from then on", true, unix.ENOSPC},
}

// TestEveryFault fails each system call of a copy-up, for every kind of object and every call that
// copies data. It also makes each call the last one. Afterwards the upper must have the whole copy
// or nothing. The next sweep must empty the work directory, and the next copy-up must succeed.
func TestEveryFault(t *testing.T) {
	memory, bare := mountFS(t, "tmpfs", ""), testkit.MountImage(t, "ext4", "", "-O", "^has_journal")
	ext4, xfs := mountFS(t, "ext4", ""), mountFS(t, "xfs", "")
	for _, layout := range []struct {
		name, lower, upper string
		trust              trust
	}{
		{"one file system", bare, bare, trust{tmpfile: true}},
		{"two file systems", memory, bare, trust{tmpfile: true}},
		{"nothing trusted", memory, memory, trust{}},
		{"order trusted", ext4, ext4, trust{ordered: true, tmpfile: true}},
		{"order trusted, clones", xfs, xfs, trust{ordered: true, tmpfile: true}},
	} {
		for _, k := range kinds() {
			if layout.lower != layout.upper && k.name != "regular" && k.name != "sparse" {
				continue // the file system of the lower matters for data only
			}
			for _, p := range plans {
				t.Run(layout.name+"/"+k.name+"/"+p.name, func(t *testing.T) {
					s := newSite(t, subdir(t, layout.lower), subdir(t, layout.upper))
					if s.work.trust != layout.trust {
						t.Fatalf("the file system is trusted with %+v, want %+v", s.work.trust, layout.trust)
					}
					k.build(t, filepath.Join(s.lowerPath, k.name))
					for i := 0; faultAt(t, s, k.name, p, i); i++ {
					}
				})
			}
		}
	}
}

func subdir(t *testing.T, base string) string {
	t.Helper()
	dir, err := os.MkdirTemp(base, "site")
	must(t, err)
	t.Cleanup(func() { must(t, os.RemoveAll(dir)) })
	return dir
}

// faultAt copies up while call i fails, and reports whether there was such a call.
func faultAt(t *testing.T, s *site, name string, p plan, i int) (fired bool) {
	t.Helper()
	lower, upper := filepath.Join(s.lowerPath, name), filepath.Join(s.upperPath, name)
	want, st, fds := describe(t, lower), s.stat(t, name), openFDs(t)
	n, failed := 0, sys.Op{}
	sys.SetFault(func(op sys.Op) error {
		n++
		if n-1 == i {
			failed = op
		}
		if n-1 == i || (p.kill && n-1 > i) {
			return p.err
		}
		return nil
	})
	err := s.copyUp(s.copier(), st, name)
	sys.SetFault(nil)
	fired = n > i

	if fds2 := openFDs(t); fds2 != fds {
		t.Fatalf("call %d (%v): %d descriptors, want %d", i, failed, fds2, fds)
	}
	_, absent := os.Lstat(upper)
	switch {
	case err == nil && absent != nil:
		t.Fatalf("call %d (%v): success without a copy", i, failed)
	case err == nil && fired && failed.Call != "utimensat":
		t.Fatalf("call %d (%v): an error passed", i, failed)
	case err != nil && err != p.err:
		t.Fatalf("call %d (%v): %v, want %v", i, failed, err, p.err)
	case err != nil && absent == nil:
		t.Fatalf("call %d (%v): a copy in spite of %v", i, failed, err)
	}
	if absent == nil {
		if got := describe(t, upper); got != want {
			t.Fatalf("call %d (%v): upper\n%s\nwant\n%s", i, failed, got, want)
		}
	}
	if !p.kill && failed.Call != "unlinkat" {
		s.wantEmptyWork(t)
	}

	// The next mount.
	s.work = OpenWork(s.work.Dir())
	must(t, s.work.Sweep())
	s.wantEmptyWork(t)
	if absent != nil {
		must(t, s.copyUp(s.copier(), st, name))
		if got := describe(t, upper); got != want {
			t.Fatalf("second try after call %d (%v): upper\n%s\nwant\n%s", i, failed, got, want)
		}
	}
	must(t, os.RemoveAll(upper))
	return fired
}

// TestEveryFaultOfSweep fails each system call of a sweep. The next sweep must remove the rest.
func TestEveryFaultOfSweep(t *testing.T) {
	base := t.TempDir()
	s := newSite(t, base, base)
	for i := 0; ; i++ {
		must(t, os.MkdirAll(filepath.Join(s.workPath, "#1/a/b/c"), 0o755))
		must(t, os.WriteFile(filepath.Join(s.workPath, "#1/a/f"), nil, 0o600))
		must(t, os.WriteFile(filepath.Join(s.workPath, "#2"), nil, 0o600))
		n := 0
		sys.SetFault(func(sys.Op) error {
			n++
			if n-1 == i {
				return unix.EIO
			}
			return nil
		})
		err := s.work.Sweep()
		sys.SetFault(nil)
		if (err != nil) != (n > i) {
			t.Fatalf("call %d of %d: %v", i, n, err)
		}
		must(t, OpenWork(s.work.Dir()).Sweep())
		s.wantEmptyWork(t)
		if n <= i {
			return
		}
	}
}
