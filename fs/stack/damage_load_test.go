package stack

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// In a directory that could not be loaded, Damaged looks at the parts one by one, down to an opaque
// one. A part that is gone is no damage.
func TestDamagedUnloaded(t *testing.T) {
	const damaged = "dir d\nxattr d " + redirectAttr + " a/../b"
	for _, c := range []struct {
		what   string
		layers []string // the upper first
		name   string   // in d; empty: d itself
		gone   int      // the layer that loses d before the look
		want   Damage
	}{
		{"nothing", []string{"dir d", "file d/f"}, "f", 0, Damage{}},
		{"the directory, by a name in it", []string{"dir d", damaged, "dir d"}, "f", 0, Damage{1, "d", damagedRedirect}},
		{"the directory itself", []string{"dir d", "dir d", damaged, "dir d"}, "", 0, Damage{2, "d", damagedRedirect}},
		{"below an opaque part", []string{"opaque d", damaged, "dir d"}, "", 0, Damage{}},
		{"of a name below an opaque part", []string{"opaque d", damaged, "dir d"}, "f", 0, Damage{}},
		{"below a part that is gone", []string{"dir d", "dir d", damaged, "dir d"}, "", 1, Damage{2, "d", damagedRedirect}},
	} {
		cfg := newFolders(t, c.layers[0], c.layers[1:]...)
		cfg.Redirects = RedirectsOn
		s := openSite(t, cfg)
		root := s.dir("")
		f := root.lookup("d")
		d := s.unloaded(root.newDir(f.Dirs), "d")
		if c.gone != 0 {
			s.change(c.gone, "d", "")
		}
		if got := s.Damaged(&d.Dir, d, c.name); got != c.want {
			t.Errorf("%s: %+v, want %+v", c.what, got, c.want)
		}
	}
}

// Damaged does not look at what an opaque directory hides.
func TestDamagedHidden(t *testing.T) {
	cfg := newFolders(t, "opaque d", "dir d\n"+meta("d/f"))
	cfg.Redirects, cfg.Features.MetaCopy = RedirectsOn, true
	s := openSite(t, cfg)
	d := s.dir("d").withNames()
	if got := s.Damaged(&d.Dir, d, "f"); got.Found() {
		t.Errorf("%+v", got)
	}
	must(t, os.Remove(filepath.Join(cfg.Upper, "d")))
	s.shut()
	s.cfg = cfg
	s.open()
	d = s.dir("d").withNames()
	if got, want := s.Damaged(&d.Dir, d, "f"), (Damage{1, "d/f", noData}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}

// Damaged reports a directory that the file system cannot open, be it the merged directory or a
// name in it.
func TestDamagedDirectoryCannotBeOpened(t *testing.T) {
	s := newSite(t, "", "dir p/d")
	m := s.dir("p")
	for name, want := range map[string]string{"": "p", "d": "p/d"} {
		for _, errno := range []unix.Errno{unix.EUCLEAN, unix.ENOENT} {
			if name == "" {
				m.close()
			}
			opened := 0
			sys.SetFault(func(op sys.Op) error {
				if op.Call == "openat2" || op.Call == "openat" {
					opened++
					return errno
				}
				return nil
			})
			got := s.Damaged(&m.Dir, m, name)
			sys.SetFault(nil)
			wanted := Damage{}
			if errno != unix.ENOENT {
				wanted = Damage{1, want, errno.Error()}
			}
			if got != wanted || opened == 0 {
				t.Errorf("%q: %+v after %d calls, want %+v", name, got, opened, wanted)
			}
			_, err := m.Layer(1)
			must(t, err)
		}
	}
}

// Damaged reports a copy in the index whose type is not that of its object.
func TestDamagedCopy(t *testing.T) {
	s := newLinked(t)
	s.copyUp("d/f")
	d, name, f := s.at("d/g")
	if got := s.Damaged(&d.Dir, d, name); got.Found() || f.Layer != Upper {
		t.Errorf("%+v", got)
	}
	copied := filepath.Join(s.cfg.Work, indexName, f.Shared.name)
	must(t, unix.Setxattr(copied, metacopyAttr, []byte("xx"), 0))
	if got, want := s.Damaged(&d.Dir, d, name), (Damage{Upper, "d/g", damagedMetacopy}); got.Reason != want.Reason {
		t.Errorf("%+v, want %+v", got, want)
	}
	must(t, os.Remove(copied))
	must(t, os.Symlink("x", copied))
	if err := s.lookup(&d.Dir, d, name, new(Found)); err != unix.EIO {
		t.Errorf("looked up: %v", err)
	}
	if got, want := s.Damaged(&d.Dir, d, name), (Damage{1, "d/g", otherCopy}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}

// DamagedData reports data with another digest, and data that cannot be read.
func TestDamagedDataDigest(t *testing.T) {
	c := newFolders(t, "", "file f text")
	c.Redirects, c.Features.MetaCopy, c.Features.Verity = RedirectsOn, true, VerityOn
	s := openSite(t, c)
	s.digest = measured
	d := &Data{Layer: 1, Path: "f", Size: 4}
	if got := s.DamagedData(d); got.Found() {
		t.Errorf("without a digest: %+v", got)
	}
	d.digest = sys.NewDigest(1, append([]byte("data"), make([]byte, 28)...))
	if got, want := s.DamagedData(d), (Damage{1, "f", otherData}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	must(t, failing("fstatat", unix.EUCLEAN, func() error {
		if got, want := s.DamagedData(d), (Damage{1, "f", unix.EUCLEAN.Error()}); got != want {
			t.Errorf("%+v, want %+v", got, want)
		}
		return nil
	}))
}
