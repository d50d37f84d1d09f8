package stack

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/testkit"
)

// expectChanges makes the stack expect that the test changes the layers.
func (s *site) expectChanges() *site {
	s.ExpectChanges()
	s.toLook = true // so that no directory is loaded by Merge, which lists it
	return s
}

// change removes an object of a layer, if one is named, and builds the table in the layer, below
// the stack.
func (s *site) change(layer int, gone, table string) {
	s.t.Helper()
	if gone != "" {
		must(s.t, os.RemoveAll(filepath.Join(s.folder(layer), gone)))
	}
	testkit.Build(s.t, s.folder(layer), table)
}

// A lookup finds what the layers have at that moment, also in a directory that was listed before,
// and under a name that was looked up before.
func TestLookupFindsChanges(t *testing.T) {
	for _, c := range []struct {
		what   string
		layers []string // the upper first
		layer  int      // the layer that changes
		gone   string   // is removed from it
		table  string   // is built in it
		path   string
		state  State
		at     int      // the layer of the object found
		dirs   []uint16 // of a directory
	}{
		{"a new file in a lower", []string{"", "file a", ""}, 2, "", "file x", "x", InLower, 2, nil},
		{"a new file over a lower's", []string{"", "", "file x"}, 1, "", "file x", "x", InLower, 1, nil},
		{"a file removed", []string{"", "file x", ""}, 1, "x", "", "x", Absent, 0, nil},
		{"the upper one of two removed", []string{"", "file x", "file x"}, 1, "x", "", "x", InLower, 2, nil},
		{"a new whiteout in a lower", []string{"", "", "file x"}, 1, "", "white x", "x", Absent, 0, nil},
		{"a new marker in a lower", []string{"", "", "file x"}, 1, "", "file .wh.x", "x", Absent, 0, nil},
		{"a whiteout removed", []string{"", "white x", "file x"}, 1, "x", "", "x", InLower, 2, nil},
		{"a new whiteout in the upper", []string{"", "file x"}, 0, "", "white x", "x", Whiteout, 0, nil},
		{"a new file in the upper", []string{"", "file x"}, 0, "", "file x", "x", InUpper, 0, nil},
		{"a file in a directory of one layer", []string{"", "dir d"}, 1, "", "file d/x", "d/x", InLower, 1, nil},
		{"a directory in one of one layer", []string{"", "dir d"}, 1, "", "dir d/x", "d/x", InLower, 1, []uint16{1}},
		{"a new part in a lower", []string{"", "dir x", ""}, 2, "", "dir x", "x", InLower, 1, []uint16{1, 2}},
		{"a new part in the upper", []string{"", "dir x", ""}, 0, "", "dir x", "x", InUpper, 0, []uint16{0, 1}},
		{"a part removed", []string{"", "dir x", "dir x", "dir x"}, 2, "x", "", "x", InLower, 1, []uint16{1, 3}},
		{"a file in place of a part", []string{"", "dir x", "dir x", "dir x"}, 2, "x", "file x", "x", InLower, 1, []uint16{1}},
		{"a file in place of a directory", []string{"", "dir x", "dir x"}, 1, "x", "file x", "x", InLower, 1, nil},
		{"a marker between parts", []string{"", "dir x", "", "dir x"}, 2, "", "file .wh.x", "x", InLower, 1, []uint16{1}},
		{"a marker above parts", []string{"", "dir x", "", "dir x", "dir x"}, 2, "", "file .wh.x", "x", InLower, 1, []uint16{1}},
		{"a marker beside a part", []string{"", "dir x", "dir x"}, 1, "", "file .wh.x", "x", InLower, 1, []uint16{1}},
		{"a marker beside the upper's", []string{"dir x", "dir x"}, 0, "", "file .wh.x", "x", InUpper, 0, []uint16{0}},
	} {
		t.Run(c.what, func(t *testing.T) {
			s := newSite(t, c.layers[0], c.layers[1:]...).expectChanges()
			m, name, _ := s.at(c.path)
			m.withNames()
			s.change(c.layer, c.gone, c.table)
			f := m.lookup(name)
			if f.State != c.state || f.Layer != c.at {
				t.Fatalf("state %d in layer %d, want %d in %d", f.State, f.Layer, c.state, c.at)
			}
			if !slices.Equal(f.Dirs, c.dirs) {
				t.Errorf("the parts lie in %v, want %v", f.Dirs, c.dirs)
			}
			var want []Part
			for _, layer := range c.dirs {
				st := lstat(t, filepath.Join(s.folder(int(layer)), c.path))
				want = append(want, Part{layer, st.Dev, st.Ino})
			}
			if !slices.Equal(f.Parts, want) {
				t.Errorf("the parts are %v, want %v", f.Parts, want)
			}
		})
	}
}

// Each call that fails in a lookup of a directory, or in the load of one, is an error, and is none
// the next time.
func TestFaultsWithChanges(t *testing.T) {
	s := newSite(t, "", "dir d/x", "dir d/y", "dir d/x").expectChanges()
	root := s.dir("")
	d := s.dir("d")
	found := root.lookup("d")
	for what, f := range map[string]func() error{
		"the lookup": func() error { return s.lookup(&d.Dir, d, "x", new(Found)) },
		"the load": func() error {
			fresh := s.unloaded(root.newDir(found.Dirs), "d")
			defer fresh.close()
			return s.Load(&fresh.Dir, fresh, ToChange)
		},
	} {
		i := 0
		for ; ; i++ {
			var err error
			if fired := faulty(i, unix.EIO, false, func() { err = f() }); !fired {
				must(t, err)
				break
			}
			if err != unix.EIO {
				t.Errorf("call %d of %s fails: %v", i, what, err)
			}
		}
		if i < 3 {
			t.Errorf("%s makes %d calls", what, i)
		}
	}
}

// A directory takes over the parts that a later lookup of its name finds, and their xattrs.
func TestRenew(t *testing.T) {
	s := newSite(t, "", "file d/a", "file d/b", "").expectChanges()
	root, d := s.dir(""), s.dir("d")
	renew := func() {
		t.Helper()
		d.close()
		f := root.lookup("d")
		d.Renew(f.Dirs, &root.Dir)
		if !d.Impure() { // not loaded: another request may come now
			t.Error("a renewed directory is known not to be impure")
		}
		if s.Loaded(&d.Dir, ToChange) || s.Loaded(&d.Dir, ToLookUp) {
			t.Error("it is loaded before Load")
		}
		must(t, s.Load(&d.Dir, d, ToChange))
		if !s.Loaded(&d.Dir, ToChange) || !s.Loaded(&d.Dir, ToLookUp) {
			t.Error("it is not loaded after Load")
		}
	}
	wantIn := func(what string, layers map[string]int) {
		t.Helper()
		for name, layer := range layers {
			f := d.lookup(name)
			if f.Exists() != (layer >= 0) || layer >= 0 && f.Layer != layer {
				t.Errorf("%s: %s is %+v, want it in layer %d", what, name, f, layer)
			}
		}
	}
	wantIn("at first", map[string]int{"a": 1, "b": 2, "c": -1})
	s.change(3, "", "file d/c\nfile d/b")
	wantIn("before the lookup", map[string]int{"a": 1, "b": 2, "c": -1})
	renew()
	wantIn("a new part", map[string]int{"a": 1, "b": 2, "c": 3})
	s.change(Upper, "", "file d/u\nwhite d/a")
	renew()
	wantIn("a part in the upper", map[string]int{"u": 0, "a": -1, "b": 2, "c": 3})
	if d.OnlyUpper() || !d.HasUpper() || !d.HasLower() || d.TopLower() != 1 {
		t.Errorf("parts %v", d.parts)
	}
	s.change(2, "d", "")
	renew()
	wantIn("a part gone", map[string]int{"u": 0, "b": 3, "c": 3})
	s.change(1, "d", "opaque d\nfile d/n")
	renew()
	wantIn("an opaque part", map[string]int{"u": 0, "b": -1, "c": -1, "n": 1})
	s.change(1, "d", "")
	s.change(3, "d", "")
	renew()
	if !d.OnlyUpper() {
		t.Errorf("only the upper has it, and the parts are %v", d.parts)
	}
}

// A part that goes between the lookup of its name and the load takes no part; if it is the
// topmost, the directory is gone.
func TestPartsGoBeforeLoad(t *testing.T) {
	for _, c := range []struct {
		layer int
		want  error
		parts int
	}{{1, unix.ENOENT, 0}, {2, nil, 2}, {3, nil, 2}} {
		for _, table := range []string{"", "file d"} {
			s := newSite(t, "", "file d/f", "file d/f", "file d/f").expectChanges()
			root := s.dir("")
			f := root.lookup("d")
			d := s.unloaded(root.newDir(f.Dirs), "d")
			s.change(c.layer, "d", table)
			want := c.want
			if want != nil && table != "" {
				want = unix.ENOTDIR
			}
			if err := s.Load(&d.Dir, d, ToChange); err != want || len(d.parts) != c.parts {
				t.Errorf("layer %d loses it for %q: %v, parts %v", c.layer, table, err, d.parts)
			}
		}
	}
}

// Parts that a redirect led to stay those of the directory, whatever a lookup of its name finds
// later.
func TestRenewKeepsRedirect(t *testing.T) {
	c := newFolders(t, "dir p\nxattr p "+redirectAttr+" q", "file q/f", "file q/g")
	c.Redirects = RedirectsOn
	s := openSite(t, c).expectChanges()
	root, p := s.dir(""), s.dir("p")
	for range 2 {
		for name, layer := range map[string]int{"f": 1, "g": 2} {
			if f := p.lookup(name); f.State != InLower || f.Layer != layer {
				t.Errorf("%s: %+v", name, f)
			}
		}
		if at, ok := p.MovedTo(1); at != "q" || !ok || !p.Moved() || p.Redirect() != "q" {
			t.Errorf("the lower has it at %q, the redirect is %q", at, p.Redirect())
		}
		f := root.lookup("p")
		p.Renew(f.Dirs, &root.Dir)
		must(t, s.Load(&p.Dir, p, ToChange))
	}
	must(t, p.relist())
	if got := p.names(); !slices.Equal(got, []string{"f", "g"}) {
		t.Errorf("listed: %v", got)
	}
}

// A directory whose redirect leads nowhere has no parts in lowers, whatever a lookup of its name
// finds later.
func TestRenewKeepsRedirectToNothing(t *testing.T) {
	c := newFolders(t, "dir p\nxattr p "+redirectAttr+" q\nfile p/own", "file p/below")
	c.Redirects = RedirectsOn
	s := openSite(t, c).expectChanges()
	root, p := s.dir(""), s.dir("p")
	for range 2 {
		if f := p.lookup("below"); f.Exists() {
			t.Errorf("below: %+v", f)
		}
		f := root.lookup("p")
		p.Renew(f.Dirs, &root.Dir)
		must(t, s.Load(&p.Dir, p, ToChange))
	}
	must(t, p.relist())
	if got := p.names(); !slices.Equal(got, []string{"own"}) {
		t.Errorf("listed: %v", got)
	}
}

// relist does what the caller does when a listing begins.
func (m *merged) relist() error {
	if !m.s.layersChange {
		return m.s.Load(&m.Dir, m, ToList)
	}
	loaded := m.Aside()
	if err := m.s.Load(&loaded, m, ToListAnew); err != nil {
		m.Adopt(nil)
		return err
	}
	m.Adopt(&loaded)
	return nil
}

// A listing that begins reads the names anew. One that is under way goes on from its place, to its
// own end.
func TestRelist(t *testing.T) {
	s := newSite(t, "", "file a\nfile b", "file c\nfile d\nfile e").expectChanges()
	m := s.dir("")
	must(t, m.relist())
	told, offset := m.after(0, 2)
	left := slices.DeleteFunc(m.names(), func(name string) bool { return slices.Contains(told, name) })
	s.change(1, left[0], "file new")
	s.change(2, left[0], "")
	s.change(1, told[0], "")
	s.change(2, told[0], "")
	before := m.table
	if err := failing("getdents64", unix.EIO, m.relist); err != unix.EIO || m.table != before {
		t.Errorf("a layer that cannot be read: %v, and another name table: %v", err, m.table != before)
	}
	must(t, m.relist())
	if rest, _ := m.after(offset, 9); !slices.Equal(rest, left[1:]) {
		t.Errorf("the listing that was under way goes on with %v, want %v", rest, left[1:])
	}
	if got, want := m.names(), append([]string{told[1]}, append(left[1:], "new")...); !slices.Equal(got, want) {
		t.Errorf("a new listing has %v, want %v", got, want)
	}
}

// Without changes expected, a listing that begins uses the known names.
func TestRelistWithoutChanges(t *testing.T) {
	s := newSite(t, "", "file a", "file b")
	m := s.dir("").withNames()
	s.change(1, "", "file new")
	before := m.table
	must(t, m.relist())
	if m.table != before || slices.Contains(m.names(), "new") {
		t.Errorf("the layers were read again: %v", m.names())
	}
}

// When names come and go until the places run out, every listing has each name once, in places that
// an offset can hold.
func TestRelistRunsOutOfPlaces(t *testing.T) {
	most := maxPlace
	t.Cleanup(func() { maxPlace = most })
	maxPlace = 30
	s := newSite(t, "", "file a\nfile b", "file c").expectChanges()
	m := s.dir("")
	eras := map[uint64]bool{}
	for i := range 60 {
		s.change(1, fmt.Sprint("n", i-1), fmt.Sprint("file n", i))
		must(t, m.relist())
		got := m.names()
		slices.Sort(got)
		if want := []string{"a", "b", "c", fmt.Sprint("n", i)}; !slices.Equal(got, want) {
			t.Fatalf("round %d: %v, want %v", i, got, want)
		}
		m.List(0, ^uint64(0), func(e *Listed) bool {
			if e.Place > maxPlace {
				t.Errorf("round %d: %s has place %d", i, e.Name, e.Place)
			}
			return true
		})
		eras[m.table.era] = true
	}
	if len(eras) < 2 {
		t.Error("the places never ran out")
	}
}
