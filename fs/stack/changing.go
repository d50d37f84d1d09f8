package stack

import (
	"cmp"
	"slices"

	"golang.org/x/sys/unix"
)

// Other processes may change the layers ([Stack.ExpectChanges]). Then nothing that was found in a
// layer stays valid. Every lookup looks for the name in each part of the directory. Every listing
// lists the directory anew. The name table only has the places of the names, so that listings under
// way go on. A lookup of the directory's own name finds its parts anew.

// ExpectChanges makes the stack expect that other processes change the layers. Call it before the
// first lookup.
func (s *Stack) ExpectChanges() { s.layersChange = true }

// Part is the inode of an object in one layer.
type Part struct {
	Layer uint16
	Dev   uint64
	Ino   uint64
}

// isGone reports whether err means that a layer has no directory any more at a path where it had
// one.
func isGone(err error) bool {
	return err == unix.ENOENT || err == unix.ENOTDIR || err == unix.ELOOP
}

// follow gives the names of t the places that they have in the previous table. Other names come
// behind them.
func (t *nameTable) follow(old *nameTable) {
	t.next, t.first = old.next, old.first
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

// Renew makes d the directory that lies in the given layers now, those of a [Found]. If a redirect
// or a rename has decided where parts of d lie, Renew changes nothing.
func (d *Dir) Renew(layers []uint16, parent *Dir) {
	if len(d.moved) > 0 || d.followed {
		return
	}
	d.layers, d.parts, d.above = layers, nil, parent.parts
	d.defaultACL, d.defaultACLKnown, d.impure = nil, false, false
}
