package stack

import (
	"cmp"
	"slices"

	"golang.org/x/sys/unix"
)

// Where layers are changed by others ([Stack.ExpectChanges]), nothing that was found in a layer is taken for granted later. A name is looked
// for in each part of its directory, every time. A directory is listed anew for each listing; its name table is kept for the places of
// the names alone, so that listings under way go on. Which parts a directory has is found out anew when its own name is looked up.

// ExpectChanges has the stack take nothing for granted that it has found in a layer. It is called before anything is looked up.
func (s *Stack) ExpectChanges() { s.layersChange = true }

// Part is an object of one layer.
type Part struct {
	Layer uint16
	Dev   uint64
	Ino   uint64
}

// goneMeanwhile reports whether a layer has no directory any more where it had one.
func goneMeanwhile(err error) bool {
	return err == unix.ENOENT || err == unix.ENOTDIR || err == unix.ELOOP
}

// follow puts the names of t in the places that they have in the table before, and others behind them.
func (t *nameTable) follow(old *nameTable) {
	t.next, t.first, t.changed = old.next, old.first, true
	t.era, t.previous, t.previousFirst = old.era, old.previous, old.previousFirst
	for _, e := range t.order {
		if before := old.known(e.name); before != nil {
			e.place = before.place
			continue
		}
		e.place = t.next
		t.next++
	}
	slices.SortFunc(t.order, func(a, b *entry) int { return cmp.Compare(a.place, b.place) })
	if t.next >= maxPlace {
		t.renumber()
	}
}

// Renew makes d the directory that lies in the given layers now, those of a [Found]. If redirects
// led to parts of d, Renew changes nothing.
func (d *Dir) Renew(layers []uint16, parent *Dir) {
	if len(d.moved) > 0 {
		return
	}
	d.layers, d.parts, d.above = layers, nil, parent.parts
	d.defaultACL, d.defaultACLKnown, d.impure = nil, false, false
}
