package stack

import (
	"sort"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// entry is what the index knows of one name. There is one for every name that was listed: it is 48 bytes, and grows to the
// next size that memory is handed out in, 64, with its next field.
type entry struct {
	name   string
	cookie uint64    // its place in the listing: grows, and is never another name's
	ino    uint64    // of the topmost object in its layer, as listed; 0: not known
	lower  *[]uint16 // a directory's further layers, top first, before opaque marks are looked at; nil: none
	merge            // what layers have under the name
	gone   bool      // not in the directory any more; it keeps the place for when the name comes back
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

// index is the merged listing of a directory. Only this mount changes the upper, so it is kept exact, not invalidated.
type index struct {
	byName  map[string]*entry // of order; nil until a name is sought among many: see known
	order   []*entry          // by cookie, one for each name
	spare   []entry           // for the next names of a large listing
	next    uint64            // the next cookie
	visible int
	subdirs int
	dead    int // entries in order that are gone

	first       uint64   // where the first listing ended; 0: none has begun
	changed     bool     // names have come or gone since the layers were read
	era         uint64   // how often places have been numbered anew, modulo eras
	former      []uint64 // the places in the era before of the entries there were when it ended
	formerFirst uint64   // first of that era
}

// firstCookie leaves room for "." and "..".
const firstCookie = 3

// few is how many places of a listing are looked through for a name rather than kept in a map besides: most directories have
// no more.
const few = 16

func newIndex() *index { return &index{next: firstCookie} }

// find returns the entry of a name; nil where there is none.
func (x *index) find(name string) *entry {
	if e := x.known(name); e != nil && !e.gone {
		return e
	}
	return nil
}

// known is find, but it also returns the entry of a name that is gone, as long as there is one. The
// map of a large directory is made when a name is first sought: a listing alone needs none.
func (x *index) known(name string) *entry {
	if x.byName == nil {
		if len(x.order) <= few {
			for _, e := range x.order {
				if e.name == name {
					return e
				}
			}
			return nil
		}
		x.byName = make(map[string]*entry, len(x.order))
		for _, e := range x.order {
			x.byName[e.name] = e
		}
	}
	return x.byName[name]
}

// merge returns what adds the entries of the next layer down, one by one.
func (x *index) merge(layer uint16) (add func(sys.Dirent)) {
	if len(x.order) == 0 { // no name of a layer is met twice
		return func(e sys.Dirent) { x.take(&e, layer) }
	}
	return func(e sys.Dirent) { x.mergeEntry(&e, layer) }
}

// take adds a name that no layer above has.
func (x *index) take(d *sys.Dirent, layer uint16) {
	e := x.room()
	*e = entry{name: d.Name, ino: d.Ino}
	e.next(layer, d.Type)
	x.add(e)
}

// room returns memory for an entry. Where there are many, it is handed out in pieces of 3 KiB, a size that memory comes in.
func (x *index) room() *entry {
	const many = 64
	if len(x.order) < many {
		return &entry{}
	}
	if len(x.spare) == 0 {
		x.spare = make([]entry, many)
	}
	e := &x.spare[0]
	x.spare = x.spare[1:]
	return e
}

// mergeEntry adds what a layer below has under a name. Where it is a whiteout its type is DT_WHT.
func (x *index) mergeEntry(d *sys.Dirent, layer uint16) {
	e := x.find(d.Name)
	if e == nil {
		x.take(d, layer)
		return
	}
	if e.next(layer, d.Type) == isPart {
		e.setLowers(append(e.lowers(), layer))
	}
}

// hide applies the marker files of a layer whose entries have been merged.
func (x *index) hide(names []string, layer uint16) {
	for _, name := range names {
		x.mergeMarker(name, layer)
	}
}

// mergeMarker applies a .wh. file: it hides what lies below its layer, not what lies beside it.
func (x *index) mergeMarker(name string, layer uint16) {
	e := x.find(name)
	if e != nil {
		e.nextMarker(layer)
		return
	}
	e = &entry{name: name}
	e.nextMarker(layer)
	x.add(e)
}

// add puts a new name at the end of the listing.
func (x *index) add(e *entry) {
	if x.next >= maxPlace {
		x.renumber()
	}
	e.cookie = x.next
	x.next++
	if x.byName != nil {
		x.byName[e.name] = e
	}
	x.order = append(x.order, e)
	x.count(e, 1)
}

// put sets the entry of a name to e. A name that is or was in the directory keeps its place. A
// process may make and remove a name over and over, as a lock or a temporary file: that does not
// move the end of the listing.
func (x *index) put(e entry) {
	x.changed = true
	old := x.known(e.name)
	if old == nil {
		x.add(&e)
		return
	}
	if old.gone {
		x.dead--
	} else {
		x.count(old, -1)
	}
	e.cookie = old.cookie
	*old = e
	x.count(old, 1)
}

func (x *index) count(e *entry, n int) {
	if e.absent() {
		return
	}
	x.visible += n
	if e.typ == unix.DT_DIR {
		x.subdirs += n
	}
}

// drop takes a name out.
func (x *index) drop(e *entry) {
	x.changed = true
	x.count(e, -1)
	e.gone = true
	x.dead++
	if x.dead > len(x.order)/2+16 {
		live := make([]*entry, 0, len(x.order)-x.dead)
		for _, o := range x.order {
			if !o.gone {
				live = append(live, o)
			}
		}
		x.order, x.dead, x.byName = live, 0, nil
	}
}

// set makes name another object of the upper. lower are the layers below that merge with it.
func (x *index) set(name string, typ uint8, lower []uint16) {
	e := entry{name: name, merge: merge{layer: Upper, typ: typ, closed: true}}
	e.setLowers(lower)
	if old := x.find(name); old != nil {
		e.below = old.belowUpper()
	}
	x.put(e)
}

// raise makes an entry of a lower one of the upper, in its place of the listing (copy-up).
func (x *index) raise(name string) {
	e := x.find(name)
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
func (x *index) cover(name string, marker, below bool) {
	x.put(entry{name: name, merge: merge{layer: Upper, typ: unix.DT_WHT, marker: marker, closed: true, below: below}})
}

// remove takes out a name that nothing lies below of.
func (x *index) remove(name string) {
	if old := x.find(name); old != nil {
		x.drop(old)
	}
}

// from returns the entries that follow a place.
func (x *index) from(place uint64) []*entry {
	i := sort.Search(len(x.order), func(i int) bool { return x.order[i].cookie > place })
	return x.order[i:]
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
// neither repeats nor misses an entry. Precondition: indexed.
func (d *Dir) List(place, end uint64, f func(*Listed) bool) {
	var l Listed
	for _, e := range d.index.from(place) {
		if e.cookie >= end {
			return
		}
		if e.gone || e.absent() {
			continue
		}
		l = Listed{e.name, e.cookie, e.typ, int(e.layer), 0, e}
		if e.layer != Upper {
			l.Ino = e.ino
		}
		if !f(&l) {
			return
		}
	}
}

// FileAfter is the name of the next regular file of a lower that follows name in the listing, or the first. Precondition: indexed.
func (d *Dir) FileAfter(name string) (next string, ok bool) {
	cookie := uint64(0)
	if name != "" {
		e := d.index.find(name)
		if e == nil {
			return "", false
		}
		cookie = e.cookie
	}
	for _, f := range d.index.from(cookie) {
		if !f.gone && f.layer != Upper && f.typ == unix.DT_REG {
			return f.name, true
		}
	}
	return "", false
}
