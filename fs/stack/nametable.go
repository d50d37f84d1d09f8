package stack

import (
	"sort"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// entry is what the name table knows of one name. There is one for every name that was listed: it is 48 bytes, and grows to the
// next size that memory is handed out in, 64, with its next field.
type entry struct {
	name  string
	place uint64    // its place in the listing: grows, and is never another name's
	ino   uint64    // of the topmost object in its layer, as listed; 0: not known
	lower *[]uint16 // a directory's further layers, top first, before opaque marks are looked at; nil: none
	merge           // what layers have under the name
	gone  bool      // not in the directory any more; it keeps the place for when the name comes back
}

func (e *entry) lowers() []uint16 {
	if e.lower == nil {
		return nil
	}
	return *e.lower
}

func (e *entry) setLowers(layers []uint16) {
	e.lower = nil
	if len(layers) > 0 {
		e.lower = &layers
	}
}

// nameTable is the merged listing of a directory. Only this mount changes the upper, so it is kept exact, not invalidated.
type nameTable struct {
	byName    map[string]*entry // of order; nil until a name is sought among many: see known
	order     []*entry          // by place, one for each name
	free      []entry           // for the next names of a large listing
	next      uint64            // the next place
	visible   int
	subdirs   int
	goneCount int // entries in order that are gone

	first         uint64   // where the first listing ended; 0: none has begun
	changed       bool     // names have come or gone since the layers were read
	era           uint64   // how often places have been numbered anew, modulo eras
	previous      []uint64 // the places in the era before of the entries there were when it ended
	previousFirst uint64   // first of that era
}

// firstPlace leaves room for "." and "..".
const firstPlace = 3

// maxScanned is how many places of a listing are looked through for a name rather than kept in a map besides: most directories have
// no more.
const maxScanned = 16

func newNameTable() *nameTable { return &nameTable{next: firstPlace} }

// find returns the entry of a name; nil where there is none.
func (t *nameTable) find(name string) *entry {
	if e := t.known(name); e != nil && !e.gone {
		return e
	}
	return nil
}

// known is find, but it also returns the entry of a name that is gone, as long as there is one. The
// map of a large directory is made when a name is first sought: a listing alone needs none.
func (t *nameTable) known(name string) *entry {
	if t.byName == nil {
		if len(t.order) <= maxScanned {
			for _, e := range t.order {
				if e.name == name {
					return e
				}
			}
			return nil
		}
		t.byName = make(map[string]*entry, len(t.order))
		for _, e := range t.order {
			t.byName[e.name] = e
		}
	}
	return t.byName[name]
}

// merge returns what adds the entries of the next layer down, one by one.
func (t *nameTable) merge(layer uint16) (add func(sys.Dirent)) {
	if len(t.order) == 0 { // no name of a layer is met twice
		return func(e sys.Dirent) { t.take(&e, layer) }
	}
	return func(e sys.Dirent) { t.mergeEntry(&e, layer) }
}

// take adds a name that no layer above has.
func (t *nameTable) take(d *sys.Dirent, layer uint16) {
	e := t.room()
	*e = entry{name: d.Name, ino: d.Ino}
	e.next(layer, d.Type)
	t.add(e)
}

// room returns memory for an entry. Where there are many, it is handed out in pieces of 3 KiB, a size that memory comes in.
func (t *nameTable) room() *entry {
	const many = 64
	if len(t.order) < many {
		return &entry{}
	}
	if len(t.free) == 0 {
		t.free = make([]entry, many)
	}
	e := &t.free[0]
	t.free = t.free[1:]
	return e
}

// mergeEntry adds what a layer below has under a name. Where it is a whiteout its type is DT_WHT.
func (t *nameTable) mergeEntry(d *sys.Dirent, layer uint16) {
	e := t.find(d.Name)
	if e == nil {
		t.take(d, layer)
		return
	}
	if e.next(layer, d.Type) == isPart {
		e.setLowers(append(e.lowers(), layer))
	}
}

// hide applies the marker files of a layer whose entries have been merged.
func (t *nameTable) hide(names []string, layer uint16) {
	for _, name := range names {
		t.mergeMarker(name, layer)
	}
}

// mergeMarker applies a .wh. file: it hides what lies below its layer, not what lies beside it.
func (t *nameTable) mergeMarker(name string, layer uint16) {
	e := t.find(name)
	if e != nil {
		e.nextMarker(layer)
		return
	}
	e = &entry{name: name}
	e.nextMarker(layer)
	t.add(e)
}

// add puts a new name at the end of the listing.
func (t *nameTable) add(e *entry) {
	if t.next >= maxPlace {
		t.renumber()
	}
	e.place = t.next
	t.next++
	if t.byName != nil {
		t.byName[e.name] = e
	}
	t.order = append(t.order, e)
	t.count(e, 1)
}

// put sets the entry of a name to e. A name that is or was in the directory keeps its place. A
// process may make and remove a name over and over, as a lock or a temporary file: that does not
// move the end of the listing.
func (t *nameTable) put(e entry) {
	t.changed = true
	old := t.known(e.name)
	if old == nil {
		t.add(&e)
		return
	}
	if old.gone {
		t.goneCount--
	} else {
		t.count(old, -1)
	}
	e.place = old.place
	*old = e
	t.count(old, 1)
}

func (t *nameTable) count(e *entry, n int) {
	if e.absent() {
		return
	}
	t.visible += n
	if e.typ == unix.DT_DIR {
		t.subdirs += n
	}
}

// drop takes a name out.
func (t *nameTable) drop(e *entry) {
	t.changed = true
	t.count(e, -1)
	e.gone = true
	t.goneCount++
	if t.goneCount > len(t.order)/2+16 {
		live := make([]*entry, 0, len(t.order)-t.goneCount)
		for _, o := range t.order {
			if !o.gone {
				live = append(live, o)
			}
		}
		t.order, t.goneCount, t.byName = live, 0, nil
	}
}

// set makes name another object of the upper. lower are the layers below that merge with it.
func (t *nameTable) set(name string, typ uint8, lower []uint16) {
	e := entry{name: name, merge: merge{layer: Upper, typ: typ, closed: true}}
	e.setLowers(lower)
	if old := t.find(name); old != nil {
		e.below = old.belowUpper()
	}
	t.put(e)
}

// copyUp makes an entry of a lower one of the upper, in its place of the listing (copy-up).
func (t *nameTable) copyUp(name string) {
	e := t.find(name)
	if e == nil || e.absent() || e.layer == Upper {
		return
	}
	e.below = true
	if e.typ == unix.DT_DIR {
		e.setLowers(append([]uint16{e.layer}, e.lowers()...))
	}
	e.layer, e.ino = Upper, 0
}

// cover makes name absent by a whiteout of the upper. below: a lower would show without it.
func (t *nameTable) cover(name string, marker, below bool) {
	t.put(entry{name: name, merge: merge{layer: Upper, typ: unix.DT_WHT, marker: marker, closed: true, below: below}})
}

// remove takes out a name that nothing lies below of.
func (t *nameTable) remove(name string) {
	if old := t.find(name); old != nil {
		t.drop(old)
	}
}

// from returns the entries that follow a place.
func (t *nameTable) from(place uint64) []*entry {
	i := sort.Search(len(t.order), func(i int) bool { return t.order[i].place > place })
	return t.order[i:]
}

// Listed is one visible entry of a listing.
type Listed struct {
	Name  string
	Place uint64 // where to go on from
	Type  uint8  // DT_*
	Layer int    // the topmost layer that has the entry
	Ino   uint64 // of a lower's object, in its layer; 0 if it takes a stat of the object

	entry *entry
}

// List calls f for each visible entry between place and end, in stable order, until f returns
// false. See [Dir.Begin] and [Dir.Resume]. It leaves out names that are gone. It also leaves out
// names that were made since the listing began, unless the directory had them before. So a listing
// neither repeats nor misses an entry. Precondition: listed.
func (d *Dir) List(place, end uint64, f func(*Listed) bool) {
	var l Listed
	for _, e := range d.table.from(place) {
		if e.place >= end {
			return
		}
		if e.gone || e.absent() {
			continue
		}
		l = Listed{e.name, e.place, e.typ, int(e.layer), 0, e}
		if e.layer != Upper {
			l.Ino = e.ino
		}
		if !f(&l) {
			return
		}
	}
}

// FileAfter is the name of the next regular file of a lower that follows name in the listing, or the first. Precondition: listed.
func (d *Dir) FileAfter(name string) (next string, ok bool) {
	place := uint64(0)
	if name != "" {
		e := d.table.find(name)
		if e == nil {
			return "", false
		}
		place = e.place
	}
	for _, f := range d.table.from(place) {
		if !f.gone && f.layer != Upper && f.typ == unix.DT_REG {
			return f.name, true
		}
	}
	return "", false
}
