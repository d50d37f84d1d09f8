package stack

import (
	"sort"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// entry is what the name table has of one name. There is one for every name that was listed. It has
// 48 bytes. One more field makes it 64, the next size class of the allocator.
type entry struct {
	name  string
	place uint64    // in the listing; no other name gets it
	ino   uint64    // of the topmost object in its layer, as listed; 0: not known
	lower *[]uint16 // a directory's further layers, topmost first; some may be hidden by opaque parts; nil: none
	merge           // what layers have under the name
	gone  bool      // removed; the name gets this place again if it comes back
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

// nameTable is the merged listing of a directory. Only this mount changes the upper, so the table
// is kept exact and never invalidated.
type nameTable struct {
	byName    map[string]*entry // of order; nil until known needs it
	order     []*entry          // by place, one for each name
	free      []entry           // memory for the next names of a large listing
	next      uint64            // the next place
	visible   int
	subdirs   int
	goneCount int // entries in order that are gone

	changes uint64  // counts names that have come or gone since the layers were read
	newest  sameEnd // the listings that began last

	first         uint64   // where the first listing ended; 0: none has begun
	era           uint64   // counts renumberings, modulo eras
	previous      []uint64 // the places of all entries before the last renumbering, in order
	previousFirst uint64   // first, before the last renumbering
}

// firstPlace leaves room for "." and "..".
const firstPlace = 3

// maxScanned is the largest number of places that known searches without a map. Most directories
// have no more.
const maxScanned = 16

func newNameTable() *nameTable { return &nameTable{next: firstPlace} }

// find returns the entry of a name; nil: the directory lacks it.
func (t *nameTable) find(name string) *entry {
	if e := t.known(name); e != nil && !e.gone {
		return e
	}
	return nil
}

// known is find that also returns the entry of a removed name, if the table still has it. It makes
// the map of a large directory at its first call: a listing alone needs no map.
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

// merge returns the function that adds one entry of the next layer down.
func (t *nameTable) merge(layer uint16) (add func(sys.Dirent)) {
	if len(t.order) == 0 { // a layer lists no name twice
		return func(e sys.Dirent) { t.take(&e, layer) }
	}
	return func(e sys.Dirent) { t.mergeEntry(&e, layer) }
}

// take adds a name that no layer above has listed.
func (t *nameTable) take(d *sys.Dirent, layer uint16) {
	e := t.room()
	*e = entry{name: d.Name, ino: d.Ino}
	e.next(layer, d.Type)
	t.add(e)
}

// room returns memory for an entry. For many entries it allocates 3 KiB at a time, a size class of
// the allocator.
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

// mergeEntry adds what a layer below has under a name. The type of a whiteout is DT_WHT.
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

// hide applies the markers of a layer whose entries have been merged.
func (t *nameTable) hide(names []string, layer uint16) {
	for _, name := range names {
		t.mergeMarker(name, layer)
	}
}

// mergeMarker applies one marker.
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
	e.place = t.takePlace()
	if t.byName != nil {
		t.byName[e.name] = e
	}
	t.order = append(t.order, e)
	t.count(e, 1)
}

// takePlace returns the next place.
func (t *nameTable) takePlace() uint64 {
	if t.next >= maxPlace {
		t.renumber()
	}
	t.next++
	return t.next - 1
}

// put sets the entry of a name to e. A name that is or was in the directory keeps its place. So a
// process that makes and removes a name over and over (a lock, a temporary file) does not move the
// end of the listing.
func (t *nameTable) put(e entry) {
	t.changes++
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

// drop removes a name.
func (t *nameTable) drop(e *entry) {
	t.changes++
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

// set makes name an object or a whiteout of the upper. No lower merges with it.
func (t *nameTable) set(name string, now merge) {
	now.layer, now.closed = Upper, true
	if old := t.find(name); old != nil && !now.absent() {
		now.below = old.belowUpper()
	}
	t.put(entry{name: name, merge: now})
}

// copyUp makes an entry of a lower one of the upper, after the copy-up. The entry keeps its place.
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

// remove removes a name that no lower has.
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
	Place uint64 // where the listing goes on after it
	Type  uint8  // DT_*
	Layer int    // the topmost layer that has the entry
	Ino   uint64 // of a lower's object, in its layer; 0 if it takes a stat of the object

	entry *entry
}

// List calls f for each visible entry between place and end, in stable order, until f returns
// false. place and end are from [Dir.Begin] and [Dir.Resume]. List omits names that were made since
// the listing began, unless the directory had them before. So a listing neither repeats nor misses
// an entry. Precondition: listed.
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

// FileAfter returns the next regular file of a lower behind name in the listing. If name is empty,
// it returns the first one. Precondition: listed.
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
