package stack

import (
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/testkit"
)

// asideUpper and asideLower describe a directory that is not listed until a few names have been
// looked for.
const (
	asideUpper = "file d/u\nfile d/both"
	asideLower = "file d/gone\nfile d/copied\nfile d/both\nfile d/stays"
)

// changeAll does to a directory all that can happen to names while it is loaded aside.
func (m *merged) changeAll() {
	m.s.t.Helper()
	m.make("new")
	m.make("brief")
	must(m.s.t, m.remove("brief")) // no lower has it
	must(m.s.t, m.remove("u"))
	must(m.s.t, m.remove("gone")) // needs a whiteout
	must(m.s.t, m.remove("both"))
	m.s.copyUp("d/copied")
	m.s.CopiedUp(&m.Dir, "copied")
}

// The name table that is taken over has the changes that were made while the copy was loaded,
// whether the load has read the upper before or after them.
func TestAdoptAfterChanges(t *testing.T) {
	leaveAll(t, 1000)
	for _, before := range []bool{true, false} {
		for _, anew := range []bool{true, false} {
			s := newSite(t, asideUpper, asideLower)
			s.toLook = true
			m := s.dir("d")
			if !s.Loaded(&m.Dir, ToLookUp) || s.Loaded(&m.Dir, ToChange) {
				t.Fatalf("parts %v, names %v", m.parts, m.table)
			}
			use := ToChange
			if anew {
				m.withNames()
				use = ToListAnew
			}
			loaded := m.Aside()
			if before {
				must(t, s.Load(&loaded, m, use))
			}
			m.changeAll()
			if !before {
				must(t, s.Load(&loaded, m, use))
			}
			if !anew && m.IsListed() {
				t.Error("the load aside has listed the directory itself")
			}
			if !m.Adopt(&loaded) {
				t.Error("not taken over")
			}
			if !s.Loaded(&m.Dir, ToChange) {
				t.Error("not loaded")
			}
			m.wantExact("adopted")
			names := m.names()
			slices.Sort(names)
			if want := []string{"copied", "new", "stays"}; !slices.Equal(names, want) {
				t.Errorf("the load first %v, anew %v: %v, want %v", before, anew, names, want)
			}
			m.make("later")
			m.wantExact("after the load")
		}
	}
}

// A directory that is listed anew keeps the places of its names, and finds names that have come to
// a layer.
func TestAdoptKeepsPlaces(t *testing.T) {
	s := newSite(t, asideUpper, asideLower)
	m := s.dir("d").withNames()
	told, offset := m.after(0, 2)
	left := slices.DeleteFunc(m.names(), func(name string) bool { return slices.Contains(told, name) })
	testkit.Build(t, s.folder(1), "file d/late")
	loaded := m.Aside()
	must(t, s.Load(&loaded, m, ToListAnew))
	m.make("new")
	if !m.Adopt(&loaded) {
		t.Fatal("not taken over")
	}
	if rest, _ := m.after(offset, 9); !slices.Equal(rest, left) {
		t.Errorf("the listing under way goes on with %v, want %v", rest, left)
	}
	if got := m.names(); !slices.Contains(got, "late") || !slices.Contains(got, "new") {
		t.Errorf("a new listing has %v", got)
	}
}

// A load that failed changes nothing, and one that began before the directory was copied up does
// not count.
func TestAdoptNothing(t *testing.T) {
	s := newSite(t, "", asideLower, "file d/below")
	d := s.dir("d").withNames()
	before := d.Dir
	_ = d.Aside()
	if !d.Adopt(nil) || d.table != before.table || d.changes != before.changes {
		t.Error("a failed load has changed the directory")
	}
	for _, failed := range []bool{false, true} {
		s := newSite(t, "", asideLower, "file d/below")
		root := s.dir("")
		f := root.lookup("d")
		d := s.unloaded(root.newDir(f.Dirs), "d")
		loaded := d.Aside()
		must(t, s.Load(&loaded, d, ToChange))
		testkit.Build(t, s.folder(Upper), "file d/u")
		d.AddUpper()
		result := &loaded
		if failed {
			result = nil
		}
		adopted := d.Adopt(result)
		if adopted || s.Loaded(&d.Dir, ToChange) || !slices.Equal(d.Layers(), []uint16{0, 1, 2}) {
			t.Errorf("taken over: %v, loaded: %v, layers %v", adopted, s.Loaded(&d.Dir, ToChange), d.Layers())
		}
		must(t, s.Load(&d.Dir, d, ToChange))
		d.wantExact("loaded again")
		if f := d.lookup("u"); f.State != InUpper {
			t.Errorf("u: %+v", f)
		}
	}
}

// A directory that was just made is empty, is in the upper alone, and needs no load.
func TestNewEmptyDir(t *testing.T) {
	s := newSite(t, "", "file d/low")
	root := s.dir("").withNames()
	must(t, root.mkdir("e"))
	e := s.unloaded(NewEmptyDir(), "e")
	if !s.Loaded(&e.Dir, ToChange) || !e.OnlyUpper() || !e.IsListed() || !e.Empty() || e.HasLower() || e.TopLower() != Upper {
		t.Errorf("%+v", e.Dir)
	}
	e.make("f")
	e.wantExact("made")
	if e.Visible() != 1 {
		t.Errorf("%d names", e.Visible())
	}
}

// mkdir makes a directory.
func (m *merged) mkdir(name string) error {
	f := m.lookup(name)
	_, err := m.s.Create(&m.Dir, m.upper(), name, &f, &Object{Mode: unix.S_IFDIR | 0o755})
	return err
}
