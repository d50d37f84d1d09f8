package stack

import "golang.org/x/sys/unix"

// nameChange is a change that this mount has made to one name of a directory. It is applied to the
// name table, and later to that of a copy that is being loaded.
type nameChange struct {
	name string
	kind changeKind
	now  merge // of nowInUpper
}

type changeKind uint8

const (
	nowInUpper changeKind = iota // an object or a whiteout
	nowGone
	nowCopiedUp
)

// apply makes the change in t.
func (c *nameChange) apply(t *nameTable) {
	switch c.kind {
	case nowInUpper:
		t.set(c.name, c.now)
	case nowGone:
		t.remove(c.name)
	case nowCopiedUp:
		t.copyUp(c.name)
	}
}

// record applies a change, also to what [Dir.Adopt] takes over.
func (d *Dir) record(c nameChange) {
	d.changes++
	if d.table != nil {
		c.apply(d.table)
	}
	if d.aside != nil {
		d.aside.changes = append(d.aside.changes, c)
	}
}

// CopiedUp records in d that the copy-up of name has been published.
func (s *Stack) CopiedUp(d *Dir, name string) { d.record(nameChange{name: name, kind: nowCopiedUp}) }

// nowObject records that name is now an object of the upper.
func (d *Dir) nowObject(name string, mode uint32) {
	d.record(nameChange{name: name, now: merge{typ: direntType(mode)}})
}

// nowWhiteout records that name is now a whiteout of the upper. w has marker and below.
func (d *Dir) nowWhiteout(name string, w merge) {
	w.typ = unix.DT_WHT
	d.record(nameChange{name: name, now: w})
}

// nowAbsent records that the object f of name was removed. If a lower has the name, name is a
// whiteout now.
func (s *Stack) nowAbsent(d *Dir, name string, f *Found) {
	if f.Below {
		d.nowWhiteout(name, merge{marker: !s.whiteouts.InPlace(name), below: true})
		return
	}
	d.record(nameChange{name: name, kind: nowGone})
}
