package stack

import (
	"maps"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// readAll returns the contents of all layers of a directory that is not loaded.
func (m *merged) readAll() (all []Contents) {
	var buf []sys.Dirent
	for i := range m.Layers() {
		var c Contents
		c, buf = m.s.Read(&m.Dir, i, m, buf)
		all = append(all, c)
	}
	return all
}

// The contents of all layers make the name table that a load makes. (Every second directory in the
// tests here is loaded so, see site.loaded.)
func TestMergeByContents(t *testing.T) {
	s := newSite(t,
		"file d/a\nwhite d/b\ndir d/c\nfile d/.wh.e\ndir o\nfile o/.wh..wh..opq\nfile o/own",
		"file d/b\nfile d/c/in\nfile d/e\nfile d/f\nopaque x\nfile x/own\nfile o/below",
		"file d/a\ndir d/c\nfile d/g\nfile x/below")
	for _, path := range []string{"", "d", "o", "x"} {
		f := Found{Dirs: []uint16{0, 1, 2}}
		if path == "x" {
			f.Dirs = f.Dirs[1:]
		}
		one, other := s.unloaded(NewDir(f.Dirs, nil), path), s.unloaded(NewDir(f.Dirs, nil), path)
		must(t, s.Load(&one.Dir, one, ToList))
		if !s.Merge(&other.Dir, other.readAll()) {
			t.Errorf("%q is not merged", path)
			continue
		}
		if !maps.Equal(one.listed(), other.listed()) || len(one.parts) != len(other.parts) {
			t.Errorf("%q: %v in %d parts, by what was read %v in %d", path, one.listed(), len(one.parts), other.listed(), len(other.parts))
		}
		other.wantExact("merged")
		if !s.Merge(&other.Dir, nil) {
			t.Error("what is listed is not left as it is")
		}
	}
}

// An error of a layer matters only if no layer above is opaque. So Merge leaves it to Load.
func TestMergeLeavesErrorsToIndex(t *testing.T) {
	s := newSite(t, "", "opaque d\nfile d/a", "file d/b")
	d := s.unloaded(NewDir([]uint16{1, 2}, nil), "d")
	all := d.readAll()
	all[0] = Unread(unix.EIO)
	if s.Merge(&d.Dir, all) || d.IsListed() {
		t.Error("merged in spite of an error")
	}
	all = d.readAll()
	all[1] = Unread(unix.EIO)
	if !s.Merge(&d.Dir, all) || !maps.Equal(d.listed(), map[string]uint8{"a": unix.DT_REG}) {
		t.Errorf("an error below an opaque mark: %v", d.IsListed())
	}
	for _, call := range []string{"openat2", "listxattr", "getdents64"} {
		d := s.unloaded(NewDir([]uint16{1, 2}, nil), "d")
		sys.SetFault(func(op sys.Op) error {
			if op.Call == call {
				return unix.EIO
			}
			return nil
		})
		all := d.readAll()
		sys.SetFault(nil)
		if s.Merge(&d.Dir, all) {
			t.Errorf("merged although %s failed", call)
		}
	}
}

// A redirect leads to other directories of the layers below. Merge leaves it to Load.
func TestMergeLeavesRedirectsToIndex(t *testing.T) {
	s := newSite(t, "", "dir d\nxattr d trusted.overlay.redirect was\nfile d/a", "file was/b\nfile d/c")
	d := s.unloaded(NewDir([]uint16{1, 2}, nil), "d")
	if s.Merge(&d.Dir, d.readAll()) {
		t.Error("merged past a redirect")
	}
}
