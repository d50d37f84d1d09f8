package stack

import (
	"cmp"
	"sort"
)

// An offset is where a READDIR goes on in a listing. A listing has no handle, and several listings
// of one directory may be under way. So an offset holds two things: the place of the last entry
// that was returned, and the end of that listing. That is the end of the directory when the listing
// began. Names that are made later have a place beyond it. So a listing does not return a name
// twice that was removed and made again, and it ends even if a process makes names faster than it
// is read.
//
// The kernel caches one listing, and answers other listings from this copy if these have the same
// offsets. Listings with the same offsets may also make one copy in turn. So an offset depends on
// place and end only, and all listings of a directory have the same end as long as it does not
// change. After a change they get another end, once a listing was read to its end: its copy is
// complete. An incomplete copy stays until a listing with the same offsets completes it.
//
// The three forms of an offset, distinguished by bits 62 and 30:
//
//	bit 62  30
//	     0   0   grown 29..16, place 15..0       small directories
//	     0   1   place 29..0                     grown is 0
//	     1       era 61..60, grown 59..30, place 29..0
//
// grown is the number of places between the end of the first listing and the end of this one. The
// first two forms fit 31 bits, because readdir(3) of 32-bit programs fails with EOVERFLOW for
// larger offsets.
const (
	largeOffset = 1 << 62
	ungrown     = 1 << 30

	placeBits = 30 // width of a place, and of grown
	smallBits = 16 // width of a place in the first form
	eraShift  = 2 * placeBits
	eras      = 4

	placeMask  = 1<<placeBits - 1
	smallPlace = 1<<smallBits - 1
	smallGrown = 1<<(placeBits-smallBits) - 1
)

// maxPlace is the place at which a directory numbers its names anew. Tests lower it.
var maxPlace uint64 = placeMask

// sameEnd is listings that have one end.
type sameEnd struct {
	end     uint64 // 0: there are none
	changes uint64 // of the name table when the first of them began
	read    bool   // one of them was read to its end
}

// Begin returns the end of a listing of d that begins now. Precondition: listed.
func (d *Dir) Begin() (end uint64) {
	t := d.table
	if t.newest.read && t.newest.changes != t.changes {
		t.takePlace() // which no name gets
	}
	if t.newest.end != t.next {
		t.newest = sameEnd{end: t.next, changes: t.changes}
	}
	t.first = cmp.Or(t.first, t.next)
	return t.next
}

// End records that a listing with that end was read to its end. It reports whether the names are
// those of the moment when the first listing with this end began. Precondition: listed.
func (d *Dir) End(end uint64) (unchanged bool) {
	l := &d.table.newest
	if l.end != end {
		return false
	}
	l.read = true
	return l.changes == d.table.changes
}

// EndsDiffer reports whether there have been listings of d with different ends. Precondition:
// listed, and a listing has begun.
func (d *Dir) EndsDiffer() bool {
	t := d.table
	return t.newest.end != t.first || t.previousFirst != 0
}

// Offset returns the offset of a place in a listing with that end. Preconditions: listed, and end
// is from [Dir.Begin] or [Dir.Resume].
func (d *Dir) Offset(place, end uint64) uint64 {
	t := d.table
	grown := end - t.first
	switch {
	case t.era == 0 && grown <= smallGrown && place <= smallPlace:
		return grown<<smallBits | place
	case t.era == 0 && grown == 0:
		return ungrown | place
	}
	return largeOffset | t.era<<eraShift | grown<<placeBits | place
}

// Resume returns the place and the end that an offset holds. Precondition: listed.
func (d *Dir) Resume(offset uint64) (place, end uint64) {
	t := d.table
	era, grown := uint64(0), uint64(0)
	switch {
	case offset&largeOffset != 0:
		era, grown, place = offset>>eraShift%eras, offset>>placeBits&placeMask, offset&placeMask
	case offset&ungrown != 0:
		place = offset & placeMask
	default:
		grown, place = offset>>smallBits&smallGrown, offset&smallPlace
	}
	switch era {
	case t.era:
		return place, min(t.first+grown, t.next)
	case (t.era + eras - 1) % eras:
		return t.renumbered(place+1) - 1, t.renumbered(t.previousFirst + grown)
	}
	return t.next, t.next // over a thousand million names have been made since
}

// renumber gives the names places from firstPlace on. Offsets that listings under way hold are
// translated by previous.
func (t *nameTable) renumber() {
	live := make([]*entry, 0, len(t.order)-t.goneCount)
	previous := make([]uint64, 0, cap(live))
	for _, e := range t.order {
		if e.gone {
			continue
		}
		previous = append(previous, e.place)
		e.place = firstPlace + uint64(len(live))
		live = append(live, e)
	}
	t.order, t.goneCount, t.byName = live, 0, nil
	t.previous, t.previousFirst = previous, t.first
	t.first, t.next = firstPlace, firstPlace+uint64(len(live))
	t.newest = sameEnd{}
	t.era = (t.era + 1) % eras
}

// renumbered returns the place of the first entry whose place before the last renumbering was at
// least old.
func (t *nameTable) renumbered(old uint64) uint64 {
	if old < firstPlace {
		return old
	}
	return firstPlace + uint64(sort.Search(len(t.previous), func(i int) bool { return t.previous[i] >= old }))
}
