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

// resolve resolves q, like a caller that does not hold the directory over calls on lowers.
func (m *merged) resolve(q *Query) (f Found, err error) {
	m.s.t.Helper()
	var need Need
	made := calls(func() { need, err = m.s.Resolve(q, &m.Dir, m, &f) })
	if need != NeedNothing && len(made) > 0 {
		m.s.t.Errorf("%s/%s needs step %d, and Resolve makes calls: %v", m.path, q.Name, need, made)
	}
	if need == NeedUpper {
		if _, err := m.Layer(Upper); err != nil {
			return f, err
		}
		need, err = m.s.Resolve(q, &m.Dir, m, &f)
	}
	switch {
	case err != nil:
	case need == NeedLayers:
		if err = m.s.LookUpInLayers(q, m, &f); q.Use == ToList {
			m.s.t.Errorf("%s has to be listed for %s", m.path, q.Name)
		}
		if err == nil {
			need, err = m.s.Resolve(q, &m.Dir, m, &f)
		}
		if need != NeedNothing {
			m.s.t.Errorf("%s/%s was looked up, and needs step %d", m.path, q.Name, need)
		}
	case need != NeedNothing:
		m.s.t.Errorf("%s/%s needs step %d", m.path, q.Name, need)
	}
	return f, err
}

// plain looks a name up as if the directory could be held over calls on lowers.
func (m *merged) plain(name string) (f Found, err error) {
	m.s.t.Helper()
	switch {
	case len(name) > NameMax:
		err = unix.ENAMETOOLONG
	case strings.HasPrefix(name, ".wh."):
	case m.table != nil && !m.s.layersChange:
		err = m.s.lookUpEntry(m.parts, m.table.find(name), m, &f)
	default:
		err = m.s.lookUpInParts(m.parts, m, name, &f)
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

// The steps of a lookup find what a lookup in one step finds, in a directory of each kind.
func TestResolveFindsWhatLayersHave(t *testing.T) {
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
			if !changing && m.IsListed() != (dir == "merged") {
				t.Fatalf("%s: iisted is %v", dir, m.IsListed())
			}
			for _, name := range []string{"up", "over", "gone", "marked", "low", "link", "sub", "below", "none", ".wh.marked",
				strings.Repeat("n", NameMax), strings.Repeat("n", NameMax+1)} {
				want, wantErr := m.plain(name)
				q := Query{Name: name}
				got, err := m.resolve(&q)
				if got, want := text(got, err), text(want, wantErr); got != want {
					t.Errorf("changing %v, %s/%s:\n got %s\nwant %s", changing, dir, name, got, want)
				}
				if ok, err := s.Confirm(&q, &m.Dir, m, &got); !ok || err != nil {
					t.Errorf("%s/%s does not count, and nothing happened: %v", dir, name, err)
				}
			}
		}
	}
}

// A name needs no lower if the upper decides it, or if no layer has it. With changes expected every
// name needs the layers.
func TestLocalNames(t *testing.T) {
	s := newSite(t, "file d/up\nwhite d/gone\ndir d/sub\nfile u/f", "file d/low\nfile d/gone\ndir d/lowdir")
	for dir, names := range map[string]map[string]bool{
		"d": {"up": true, "gone": true, "sub": true, "none": true, "low": false, "lowdir": false},
		"u": {"f": true, "none": true},
	} {
		m := s.dir(dir)
		m.upper()
		for name, local := range names {
			if need := s.Needs(&Query{Name: name}, &m.Dir, m); (need == NeedNothing) != local {
				t.Errorf("%s/%s needs step %d", dir, name, need)
			}
		}
	}
	s.expectChanges()
	m := s.dir("d")
	if need := s.Needs(&Query{Name: "up"}, &m.Dir, m); need != NeedLayers {
		t.Errorf("step %d is needed, though layers change", need)
	}
}

// The steps come in their order: a directory is loaded, and open in the upper, before a name is
// looked up in it. To change a directory of the upper, it has to be open there for every name.
func TestNeedsInOrder(t *testing.T) {
	s := newSite(t, "file d/up", "file d/low")
	root := s.dir("")
	f := root.lookup("d")
	d := s.unloaded(root.newDir(f.Dirs), "d")
	want := func(what string, q *Query, want Need) {
		t.Helper()
		if need := s.Needs(q, &d.Dir, d); need != want {
			t.Errorf("%s: %s needs step %d, want %d", what, q.Name, need, want)
		}
	}
	for _, use := range []Use{ToLookUp, ToChange, ToList} {
		want("not loaded", &Query{Name: "up", Use: use}, NeedLoad)
	}
	must(t, s.Load(&d.Dir, d, ToChange))
	d.close()
	want("closed", &Query{Name: "up"}, NeedUpper)
	want("closed", &Query{Name: "none"}, NeedNothing)
	want("closed", &Query{Name: "low"}, NeedLayers)
	want("closed", &Query{Name: "low", Use: ToChange}, NeedUpper)
	d.upper()
	low := Query{Name: "low", Use: ToChange}
	want("open", &low, NeedLayers)
	must(t, s.LookUpInLayers(&low, d, &f))
	want("looked up", &low, NeedNothing)
	must(t, d.remove("low"))
	want("removed", &low, NeedNothing)
	if need, err := s.Resolve(&low, &d.Dir, d, &f); need != NeedNothing || err != nil || f.State != Whiteout {
		t.Errorf("removed: step %d, %v, %+v", need, err, f)
	}
}

// A listed entry resolves to what a lookup of its name finds.
func TestQueryOfListed(t *testing.T) {
	for _, changing := range []bool{false, true} {
		s := newSite(t, "file d/up\nfile d/over\nwhite d/gone", "file d/low\nfile d/over\nfile d/gone\ndir d/sub")
		if changing {
			s.expectChanges()
		}
		m := s.dir("d").withNames()
		n := 0
		m.List(0, ^uint64(0), func(l *Listed) bool {
			n++
			q := l.Query()
			got, err := m.resolve(&q)
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

// What was found counts for as long as the directory takes the name from the same layer, whatever
// happens to other names.
func TestWhatWasFoundCounts(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(m *merged)
		valid  bool
	}{
		{"low", func(m *merged) { m.make("other") }, true},
		{"low", func(m *merged) { must(m.s.t, m.remove("second")) }, true},
		{"up", func(m *merged) { m.make("other") }, true},
		{"sub", func(m *merged) { m.make("other") }, true},
		{"none", func(m *merged) { m.make("other") }, false}, // it may be the other
		{"none", func(m *merged) { m.make("none") }, false},
		{"low", func(m *merged) { must(m.s.t, m.remove("low")) }, false},
		{"low", func(m *merged) { must(m.s.t, m.remove("low")); m.make("low") }, false},
		{"low", func(m *merged) { m.s.copyUp("d/low"); m.s.CopiedUp(&m.Dir, "low") }, false},
		{"up", func(m *merged) { must(m.s.t, m.remove("up")) }, false},
		{"up", func(m *merged) { must(m.s.t, m.remove("up")); must(m.s.t, m.mkdir("up")) }, false},
		{"sub", func(m *merged) { must(m.s.t, m.remove("sub")); must(m.s.t, m.mkdir("sub")) }, false},
	} {
		s := newSite(t, "file d/up", "file d/low\nfile d/second\ndir d/sub", "dir d/sub")
		m := s.dir("d").withNames()
		q := m.query(c.name)
		must(t, s.LookUpInLayers(q, m, new(Found)))
		c.change(m)
		if q.IsUnchanged(&m.Dir) {
			t.Errorf("%s: the directory counts as unchanged", c.name)
		}
		if q.isValid(&m.Dir) != c.valid {
			t.Errorf("%s counts: %v, want %v", c.name, q.isValid(&m.Dir), c.valid)
		}
	}
	// Without a name table, nothing but an unchanged directory will do.
	leaveAll(t, 1000)
	s := newSite(t, "file d/up", "file d/low")
	s.toLook = true
	m := s.dir("d")
	q := m.query("low")
	m.make("other")
	if q.isValid(&m.Dir) {
		t.Error("it counts for an unlisted directory that has changed")
	}
}

// For an object of the upper, Confirm reads the attributes anew, and finds that it is another.
func TestConfirmLooksAtTheUpper(t *testing.T) {
	s := newSite(t, "file d/up\nfile d/second", "file d/low")
	m := s.dir("d").withNames()
	q := Query{Name: "up"}
	f, err := m.resolve(&q)
	must(t, err)
	m.make("other")
	testkit.Build(t, s.folder(Upper), "file d/up longer")
	size := f.Stat.Size
	if ok, err := s.Confirm(&q, &m.Dir, m, &f); !ok || err != nil || f.Stat.Size == size {
		t.Errorf("the same: %v, %v, size %d", ok, err, f.Stat.Size)
	}
	must(t, m.remove("up"))
	if ok, err := s.Confirm(&q, &m.Dir, m, &f); ok || err != nil {
		t.Errorf("removed: %v, %v", ok, err)
	}
	m.make("up")
	if ok, err := s.Confirm(&q, &m.Dir, m, &f); ok || err != nil {
		t.Errorf("another: %v, %v", ok, err)
	}
	if ok, err := s.Confirm(&Query{Name: "up"}, &m.Dir, m, &f); ok || err != nil {
		t.Errorf("never looked up: %v, %v", ok, err)
	}
	q = Query{Name: "second"}
	f, err = m.resolve(&q)
	must(t, err)
	m.make("third")
	err = failing("fstatat", unix.EIO, func() error { _, err := s.Confirm(&q, &m.Dir, m, &f); return err })
	if err != unix.EIO {
		t.Errorf("the upper cannot be read: %v", err)
	}
}

// A query keeps the parts that the directory had, and what its name table knew.
func TestQueryKeepsParts(t *testing.T) {
	s := newSite(t, "", "file d/f", "file d/g")
	m := s.dir("d").withNames()
	q := m.query("f")
	testkit.Build(t, s.folder(Upper), "dir d")
	m.AddUpper()
	m.make("new")
	must(t, m.remove("f"))
	if len(q.parts) != 2 || q.parts[0].layer != 1 {
		t.Errorf("parts %v", q.parts)
	}
	var f Found
	if err := s.LookUpInLayers(q, m, &f); err != nil || f.State != InLower || f.Layer != 1 {
		t.Errorf("looked up as it was: %+v, %v", f, err)
	}
}

// If a lookup in an unlisted directory finds a directory, which may have further parts, the next
// step is to list it.
func TestUnexpectedDirectoryNeedsLoad(t *testing.T) {
	leaveAll(t, 1000)
	s := newSite(t, "", "file d/f", "file d/g")
	s.toLook = true
	m := s.dir("d")
	s.change(1, "", "dir d/late")
	q := m.query("late")
	var f Found
	if err := failing("fstatat", unix.EIO, func() error { return s.LookUpInLayers(q, m, &f) }); err != unix.EIO {
		t.Errorf("a layer that cannot be read: %v", err)
	}
	if err := s.LookUpInLayers(q, m, &f); err != nil || q.Use != ToList || f.Exists() {
		t.Errorf("to be listed: %v, %v", q.Use, err)
	}
	if need := s.Needs(q, &m.Dir, m); need != NeedLoad {
		t.Errorf("the next step is %d", need)
	}
}

// A metacopy of the upper resolves to its attributes. LookUpInLayers finds its data.
func TestMetacopyNeedsData(t *testing.T) {
	c := newFolders(t, meta("d/f")+"file d/whole text", "file d/f data")
	c.Redirects, c.Features.MetaCopy = RedirectsOn, true
	s := openSite(t, c)
	m := s.dir("d")
	m.upper()
	for name, want := range map[string]Need{"f": NeedData, "whole": NeedNothing} {
		q := Query{Name: name}
		var f Found
		need, err := s.Resolve(&q, &m.Dir, m, &f)
		if need != want || !need.Resolved() || err != nil || f.State != InUpper || f.Data != nil {
			t.Errorf("%s: step %d, %+v, %v", name, need, f, err)
		}
		if err := s.LookUpInLayers(&q, m, &f); err != nil || (f.Data == nil) != (want == NeedNothing) {
			t.Errorf("%s: %+v, %v", name, f, err)
		}
		if want == NeedData {
			if got, err := s.textOf(f.Data); got != "data" || err != nil {
				t.Errorf("%s: %q, %v", name, got, err)
			}
		}
	}
	q := Query{Name: "f"}
	for _, call := range []string{"fstatat", "getxattr"} {
		err := failing(call, unix.EIO, func() error { _, err := s.Resolve(&q, &m.Dir, m, new(Found)); return err })
		if err != unix.EIO {
			t.Errorf("%s fails: %v", call, err)
		}
	}
	must(t, unix.Unlink(filepath.Join(c.Upper, "d/f")))
	var f Found
	if need, err := s.Resolve(&q, &m.Dir, m, &f); need != NeedNothing || err != nil || f.Exists() {
		t.Errorf("gone: %+v, %v", f, err)
	}
}
