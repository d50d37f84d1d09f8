package stack

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/sys"
	"github.com/fuse-overlay/fuse-overlay/internal/testkit"
)

// told looks a name up in steps, like a caller that does not hold the directory over calls on
// lowers.
func (m *merged) told(q *Sought) (f Found, err error) {
	m.s.t.Helper()
	if !q.Local() {
		list, err := m.s.Ask(q, m, &f)
		if list {
			m.s.t.Errorf("%s has to be listed for %s", m.path, q.name)
		}
		return f, err
	}
	var complete bool
	made := calls(func() { complete, err = m.s.Glance(q, m, &f) })
	if err == nil && !complete {
		m.s.t.Errorf("%s/%s is not complete", m.path, q.name)
	}
	if !q.NeedsUpper() && len(made) > 0 {
		m.s.t.Errorf("%s/%s needs no look at the upper, and makes calls: %v", m.path, q.name, made)
	}
	return f, err
}

// text is all of a result that a caller uses.
func text(f Found, err error) string {
	if !f.Exists() {
		f.Stat = sys.Stat{}
	}
	return fmt.Sprintf("%+v, %v", f, err)
}

// Seek with Glance or Ask finds what Lookup finds, in a directory of each kind.
func TestSeekIsLookup(t *testing.T) {
	leaveAll(t, 1000)
	const upper = "file %[1]s/up\nfile %[1]s/over\nwhite %[1]s/gone\nfile %[1]s/.wh.marked\nsymlink %[1]s/link x\n"
	const lower = "file %[1]s/low\nfile %[1]s/over\nfile %[1]s/gone\nfile %[1]s/marked\n"
	table := func(form, dir string) string { return fmt.Sprintf(form, dir) }
	for _, changing := range []bool{false, true} {
		s := newSite(t, table(upper, "merged")+table(upper, "flat")+table(upper, "one")+"dir merged/sub\ndir one/sub",
			table(lower, "merged")+table(lower, "flat")+table(lower, "two")+"dir merged/sub\ndir merged/below\ndir two/sub")
		s.toLook = true
		if changing {
			s.expectChanges()
		}
		for _, dir := range []string{"merged", "flat", "one", "two"} {
			m := s.dir(dir)
			if !changing && m.Indexed() != (dir == "merged") {
				t.Fatalf("%s: indexed is %v", dir, m.Indexed())
			}
			for _, name := range []string{"up", "over", "gone", "marked", "low", "link", "sub", "below", "none", ".wh.marked",
				strings.Repeat("n", NameMax), strings.Repeat("n", NameMax+1)} {
				var want Found
				wantErr := s.Lookup(&m.Dir, m, name, &want)
				v := s.View(&m.Dir)
				q := m.Seek(&v, name)
				got, err := m.told(&q)
				if got, want := text(got, err), text(want, wantErr); got != want {
					t.Errorf("changing %v, %s/%s:\n got %s\nwant %s", changing, dir, name, got, want)
				}
				if !q.Still(&m.Dir) || !q.AsItWas(&m.Dir) {
					t.Errorf("%s/%s does not count, and nothing happened", dir, name)
				}
			}
		}
	}
}

// A name is local if the upper decides it, or if no layer has it. With changes expected no name is.
func TestLocalNames(t *testing.T) {
	s := newSite(t, "file d/up\nwhite d/gone\ndir d/sub\nfile u/f", "file d/low\nfile d/gone\ndir d/lowdir")
	for dir, names := range map[string]map[string]bool{
		"d": {"up": true, "gone": true, "sub": true, "none": true, "low": false, "lowdir": false},
		"u": {"f": true, "none": true},
	} {
		m := s.dir(dir)
		for name, local := range names {
			v := s.View(&m.Dir)
			if q := m.Seek(&v, name); q.Local() != local {
				t.Errorf("%s/%s: local is %v", dir, name, q.Local())
			}
		}
	}
	s.expectChanges()
	m := s.dir("d")
	v := s.View(&m.Dir)
	if q := m.Seek(&v, "up"); q.Local() {
		t.Error("local, though layers change")
	}
}

// SeekListed finds for an entry of a listing what Lookup finds for its name.
func TestSeekListed(t *testing.T) {
	for _, changing := range []bool{false, true} {
		s := newSite(t, "file d/up\nfile d/over\nwhite d/gone", "file d/low\nfile d/over\nfile d/gone\ndir d/sub")
		if changing {
			s.expectChanges()
		}
		m := s.dir("d").indexed()
		n := 0
		v := s.View(&m.Dir)
		m.List(0, ^uint64(0), func(l *Listed) bool {
			n++
			q := m.SeekListed(&v, l)
			got, err := m.told(&q)
			if got, want := text(got, err), text(m.lookup(l.Name), nil); got != want {
				t.Errorf("%s:\n got %s\nwant %s", l.Name, got, want)
			}
			return true
		})
		if n != 4 {
			t.Errorf("%d names", n)
		}
	}
}

// An answer counts for as long as the directory takes the name from the same layer, whatever
// happens to other names.
func TestStill(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(m *merged)
		still  bool
	}{
		{"low", func(m *merged) { m.make("other") }, true},
		{"low", func(m *merged) { must(m.s.t, m.remove("second")) }, true},
		{"up", func(m *merged) { m.make("other") }, true},
		{"sub", func(m *merged) { m.make("other") }, true},
		{"none", func(m *merged) { m.make("other") }, false}, // it may be the other
		{"none", func(m *merged) { m.make("none") }, false},
		{"low", func(m *merged) { must(m.s.t, m.remove("low")) }, false},
		{"low", func(m *merged) { must(m.s.t, m.remove("low")); m.make("low") }, false},
		{"low", func(m *merged) { m.s.raise("d/low"); m.s.Raised(&m.Dir, "low") }, false},
		{"up", func(m *merged) { must(m.s.t, m.remove("up")) }, false},
		{"up", func(m *merged) { must(m.s.t, m.remove("up")); must(m.s.t, m.mkdir("up")) }, false},
		{"sub", func(m *merged) { must(m.s.t, m.remove("sub")); must(m.s.t, m.mkdir("sub")) }, false},
	} {
		s := newSite(t, "file d/up", "file d/low\nfile d/second\ndir d/sub", "dir d/sub")
		m := s.dir("d").indexed()
		v := s.View(&m.Dir)
		q := m.Seek(&v, c.name)
		c.change(m)
		if q.AsItWas(&m.Dir) {
			t.Errorf("%s: the directory counts as unchanged", c.name)
		}
		if q.Still(&m.Dir) != c.still {
			t.Errorf("%s counts: %v, want %v", c.name, q.Still(&m.Dir), c.still)
		}
	}
	// Without an index, nothing but an unchanged directory will do.
	leaveAll(t, 1000)
	s := newSite(t, "file d/up", "file d/low")
	s.toLook = true
	m := s.dir("d")
	v := s.View(&m.Dir)
	q := m.Seek(&v, "low")
	m.make("other")
	if q.Still(&m.Dir) {
		t.Error("it counts for an unlisted directory that has changed")
	}
}

// A view stays as the directory was, and so does what was sought in it.
func TestViewStays(t *testing.T) {
	s := newSite(t, "", "file d/f", "file d/g")
	m := s.dir("d").indexed()
	v := s.View(&m.Dir)
	q := m.Seek(&v, "f")
	testkit.Build(t, s.folder(Upper), "dir d")
	m.AddUpper()
	m.make("new")
	must(t, m.remove("f"))
	for what, d := range map[string]*Dir{"the view": v.Dir(), "what was sought": q.Was()} {
		if d.HasUpper() || d.Top() != 1 || len(d.parts) != 2 {
			t.Errorf("%s: parts %v of %v", what, d.parts, d.layers)
		}
	}
	var f Found
	list, err := s.Ask(&q, m, &f)
	if list || err != nil || f.State != InLower || f.Layer != 1 {
		t.Errorf("asked for what was: %+v, %v", f, err)
	}
}

// Ask reports that an unlisted directory has to be listed if it finds a directory in it, which may
// have further parts.
func TestAskForUnexpectedDirectory(t *testing.T) {
	leaveAll(t, 1000)
	s := newSite(t, "", "file d/f", "file d/g")
	s.toLook = true
	m := s.dir("d")
	s.change(1, "", "dir d/late")
	v := s.View(&m.Dir)
	q := m.Seek(&v, "late")
	var f Found
	if list, err := s.Ask(&q, m, &f); !list || err != nil {
		t.Errorf("to be listed: %v, %v", list, err)
	}
	if err := failing("fstatat", unix.EIO, func() error { _, err := s.Ask(&q, m, &f); return err }); err != unix.EIO {
		t.Errorf("a layer that cannot be read: %v", err)
	}
}

// Glance at a metacopy returns its attributes and is not complete; Ask finds its data.
func TestGlanceAtMetacopy(t *testing.T) {
	c := newFolders(t, meta("d/f")+"file d/whole text", "file d/f data")
	c.Redirects, c.Features.MetaCopy = RedirectsOn, true
	s := openSite(t, c)
	m := s.dir("d")
	v := s.View(&m.Dir)
	for name, whole := range map[string]bool{"f": false, "whole": true} {
		q := m.Seek(&v, name)
		var f Found
		complete, err := s.Glance(&q, m, &f)
		if !q.Local() || complete != whole || err != nil || f.State != InUpper || f.Data != nil {
			t.Errorf("%s: complete is %v, %+v, %v", name, complete, f, err)
		}
		if list, err := s.Ask(&q, m, &f); list || err != nil || (f.Data == nil) != whole {
			t.Errorf("%s: %+v, %v", name, f, err)
		}
		if !whole {
			if got, err := s.textOf(f.Data); got != "data" || err != nil {
				t.Errorf("%s: %q, %v", name, got, err)
			}
		}
	}
	q := m.Seek(&v, "f")
	for _, call := range []string{"fstatat", "getxattr"} {
		err := failing(call, unix.EIO, func() error { _, err := s.Glance(&q, m, new(Found)); return err })
		if err != unix.EIO {
			t.Errorf("%s fails: %v", call, err)
		}
	}
	must(t, unix.Unlink(filepath.Join(c.Upper, "d/f")))
	var f Found
	if complete, err := s.Glance(&q, m, &f); !complete || err != nil || f.Exists() {
		t.Errorf("gone: %+v, %v", f, err)
	}
}
