package stack

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"

	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// wantExact fails the test if m differs from a directory that is loaded afresh: in its names, in
// the table and looked up, in their types, and in what lies below them.
func (m *merged) wantExact(what string) {
	m.s.t.Helper()
	fresh := m.s.dir(m.path).withNames()
	defer fresh.close()
	names := map[string]bool{"never seen": true}
	for _, x := range []*nameTable{fresh.table, m.table} {
		if x == nil {
			continue
		}
		for _, e := range x.order {
			names[e.name] = true
		}
	}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		if got, want := m.summary(name), fresh.summary(name); got != want {
			m.s.t.Errorf("%s: %s/%s is known as %s, in truth it is %s", what, m.path, name, got, want)
		}
	}
	if m.table == nil {
		return
	}
	if got, want := m.listed(), fresh.listed(); !maps.Equal(got, want) {
		m.s.t.Errorf("%s: %s lists %v, in truth %v", what, m.path, got, want)
	}
	if m.Subdirs() != fresh.Subdirs() || m.Empty() != fresh.Empty() {
		m.s.t.Errorf("%s: %s has %d directories, empty %v; in truth %d, empty %v", what, m.path, m.Subdirs(), m.Empty(),
			fresh.Subdirs(), fresh.Empty())
	}
}

func (m *merged) listed() map[string]uint8 {
	types := map[string]uint8{}
	m.List(0, ^uint64(0), func(e *Listed) bool { types[e.Name] = e.Type; return true })
	return types
}

// summary returns all that matters of what a name means. A marker that hides nothing equals none. A
// marker beside an object hides nothing else than the object does. A directory that shows nothing
// may merge or not.
func (m *merged) summary(name string) string {
	f := m.lookup(name)
	if f.State == Whiteout && f.Marker && !f.Below {
		f.State, f.Marker = Absent, false
	}
	if f.Exists() {
		f.Marker = false
	} else {
		f.Stat = sys.Stat{} // perhaps the whiteout's
	}
	parts := ""
	if f.IsDir() {
		d := m.s.mergedDir(m.newDir(f.Dirs), filepath.Join(m.path, name))
		if parts = "of nothing"; !d.withNames().Empty() {
			parts = fmt.Sprint(d.parts)
		}
		d.close()
	}
	return fmt.Sprintf("state %d, layer %d, inode %d, type %o, parts %s, below %v, marker %v",
		f.State, f.Layer, f.Stat.Ino, f.Stat.Mode&0o170000, parts, f.Below, f.Marker)
}
