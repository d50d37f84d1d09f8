package fs

import (
	"cmp"
	"sync"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/fs/stack"
	"github.com/fuse-overlay/fuse-overlay/inodecache"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// listing is one READDIR or READDIRPLUS under way. With the directory's mu held, it chooses the
// entries that fit the reply. Then it calls lowers for some of them with no lock held, and writes
// the reply.
type listing struct {
	o    *Overlay
	n    *Node
	d    *openDir // opens n
	form listingForm
	out  *fuse.DirEntryList
	room int // bytes left in the reply
	// dropCopy: the kernel's copy of the directory's listing must not be used.
	dropCopy bool
	// doubtful: entries may have other inode numbers than their objects in the layers.
	doubtful bool

	err    error
	unsent []*Node // references that the kernel does not get

	entries []listed
	pending []pendingLookup // those of entries that need calls on layers
}

// listingForm is the form of a reply that lists a directory.
type listingForm uint8

const (
	namesOnly      listingForm = iota // READDIR
	withAttributes                    // READDIRPLUS
)

// listings are those not in use, with the room for entries that they had.
var listings = sync.Pool{New: func() any { return &listing{} }}

// listed is an entry that the reply is going to contain.
type listed struct {
	name    string
	offset  uint64 // where the listing goes on after it
	layer   int
	typ     uint8  // DT_*, as listed
	kind    uint32 // S_IFMT
	ino     uint64
	node    *Node // nil: the reply has no attributes of it
	pending int   // its index in listing.pending, from 1; 0: none
	shared  bool  // its attributes may have been changed through another name since
	st      sys.Stat
}

// pendingLookup is the lookup of an entry that needs calls on layers.
type pendingLookup struct {
	lookup
	again bool // its answer was not valid any more
}

// collect finds the entries that fit the reply, with a reference on each node. It makes calls on
// lowers with no lock held.
func (l *listing) collect(thread uint32, offset uint64) error {
	defer l.d.release()
	if offset == 0 {
		l.o.refresh(l.n)
	}
	if err := l.lock(offset); err != nil || l.n.place().unlinked {
		if err == nil {
			l.n.dir.mu.Unlock()
		} else if l.n.place().unlinked {
			err = nil
		}
		return err
	}
	l.chooseLocked(thread, offset)
	l.n.dir.mu.Unlock()
	if l.dropCopy {
		l.o.kernel.dropListing(l.n.ID())
	}
	if len(l.pending) > 0 {
		l.askLowers()
		l.takeAnswers()
	}
	for i := range l.entries {
		e := &l.entries[i]
		if e.shared && l.err == nil {
			l.err = l.o.statShared(e.node, &e.st)
		}
	}
	if len(l.entries) > 0 {
		l.err = nil // the READDIR that goes on from there returns it
	}
	return l.err
}

// lock locks the directory once it is listed, and open in the upper.
func (l *listing) lock(offset uint64) error {
	if offset == 0 {
		if err := l.o.lockListed(l.n); err != nil {
			return err
		}
		l.n.dir.mu.Unlock()
	}
	for {
		if err := l.o.lockLoaded(l.n, stack.ToList); err != nil {
			return err
		}
		if !l.n.dir.HasUpper() || l.d.Has(stack.Upper) {
			return nil
		}
		l.n.dir.mu.Unlock()
		if _, err := l.d.upper(); err != nil {
			return err
		}
	}
}

// chooseLocked takes the entries from the name table, and does for them what needs no lower.
// Preconditions: n.dir.mu is held, n is listed and open in the upper.
func (l *listing) chooseLocked(thread uint32, offset uint64) {
	o, dir := l.o, l.n.dir
	place, end := uint64(0), uint64(0)
	if offset == 0 {
		end = l.beginLocked()
	} else {
		place, end = dir.Resume(offset)
	}
	if o.policy.StrictAtime && offset == 0 && l.n.inUpper() && !o.cfg.AccessTimes.NoDirs() {
		if up, err := l.d.upper(); err == nil {
			_ = up.MarkRead() // the listing itself comes from the name table
		}
	}
	l.doubtful = o.numbers.doubtful(l.n)
	l.dotsLocked(place, end)
	d := noAttributes
	if l.form == withAttributes {
		d = l.detailForLocked(thread, place)
	}
	dir.List(place, end, func(e *stack.Listed) bool {
		if !l.takes(e.Name) {
			return false
		}
		next := listed{name: e.Name, offset: dir.Offset(e.Place, end), layer: e.Layer, typ: e.Type}
		if !l.nameSufficesLocked(e, &next, d) {
			return l.addLookupLocked(e, next)
		}
		l.entries = append(l.entries, next)
		if d == allButSample {
			d = allAttributes
		}
		return true
	})
	if offset != 0 && len(l.entries) == 0 && len(l.out.Bytes()) == 0 {
		l.endLocked(end)
	}
}

// nameSufficesLocked reports whether the reply needs no attributes of an entry, and the layer has
// listed the rest, which nameSuffices puts into next. Preconditions: n.dir.mu is held.
func (l *listing) nameSufficesLocked(e *stack.Listed, next *listed, d detail) bool {
	if e.Ino == 0 || l.form == withAttributes && (e.Type == unix.DT_DIR || d == allAttributes) {
		return false
	}
	next.ino = l.o.numbers.Of(inodecache.Key{Dev: l.o.stack.Device(e.Layer), Ino: e.Ino})
	if next.ino == 0 || l.o.numbers.mayDifferLocked(l.n, e.Name, next.ino, l.doubtful) {
		return false
	}
	next.kind = uint32(e.Type) << 12 // DTTOIF of libc
	return true
}

// addLookupLocked looks an entry up, as far as that needs no lower, and reports whether the listing
// goes on. Preconditions: those of chooseLocked.
func (l *listing) addLookupLocked(e *stack.Listed, next listed) bool {
	l.pending = append(l.pending, pendingLookup{
		lookup: lookup{o: l.o, p: l.n, d: l.d, name: e.Name, nameStays: true, query: e.Query()},
	})
	m := &l.pending[len(l.pending)-1]
	var done bool
	var err error
	if !l.o.cfg.LayersChange {
		done, err = m.lookInUpperLocked()
	}
	if !done && err == nil {
		next.pending = len(l.pending)
		l.entries = append(l.entries, next)
		return true
	}
	if m.unused != nil {
		l.unsent = append(l.unsent, m.unused)
	}
	if l.fill(&next, &m.lookup, err) {
		l.entries = append(l.entries, next)
	}
	*m = pendingLookup{}
	l.pending = l.pending[:len(l.pending)-1]
	return l.err == nil
}

// fill fills in an entry that has been looked up, and reports whether the reply gets it. If the
// listing ends before the entry, fill sets l.err.
func (l *listing) fill(e *listed, m *lookup, err error) bool {
	switch {
	case l.o.concernsEntryAlone(e.typ, e.layer, err):
		// The LOOKUP of the entry returns the error. Its directory can be listed.
		e.node, e.kind, e.ino = nil, uint32(e.typ)<<12, unknownIno
	case err != nil:
		l.err = err
		return false
	case m.node == nil: // a layer changed under the mount
		return false
	default:
		e.node, e.st, e.shared = m.node, m.found.Stat, m.found.Shared != nil
	}
	return true
}

// askLowers takes the remaining steps of all pending lookups. Preconditions: no directory's mu is
// held.
func (l *listing) askLowers() {
	o := l.o
	if o.cfg.LayersChange {
		for i := range l.pending {
			l.pending[i].again = true // each by itself
		}
		return
	}
	var dirs []*Node
	var of []*pendingLookup
	for i := range l.pending {
		m := &l.pending[i]
		m.askLowers()
		if m.newDir != nil && m.err == nil {
			dirs, of = append(dirs, m.newDir), append(of, m)
		}
	}
	if len(dirs) > 0 {
		errs := make([]error, len(dirs))
		o.initDirs(dirs, errs)
		for k, m := range of {
			m.err = errs[k]
		}
	}
	l.n.dir.mu.Lock()
	defer l.n.dir.mu.Unlock()
	for i := range l.pending {
		m := &l.pending[i]
		var done bool
		done, m.err = m.finishLocked()
		m.again = !done && m.err == nil
	}
}

// takeAnswers keeps the entries that the reply gets. The listing ends before an entry whose error
// does not concern that entry alone.
func (l *listing) takeAnswers() {
	last := l.err
	l.err = nil
	count := 0
	for i := range l.entries {
		if !l.takeAnswer(&l.entries[i]) {
			continue
		}
		if count != i {
			l.entries[count] = l.entries[i]
		}
		count++
	}
	clear(l.entries[count:])
	l.entries = l.entries[:count]
	l.err = cmp.Or(l.err, last)
}

// takeAnswer fills in an entry whose lookup was pending, and reports whether the reply gets it: not
// behind an entry at which the listing ends.
func (l *listing) takeAnswer(e *listed) bool {
	if e.pending == 0 {
		if l.err != nil && e.node != nil {
			l.unsent = append(l.unsent, e.node)
		}
		return l.err == nil
	}
	m := &l.pending[e.pending-1]
	m.release()
	if m.again && l.err == nil {
		m.node, m.err = l.o.child(l.n, m.name, &m.found.Stat)
		m.found.Shared = nil // child has read the attributes of all names
	}
	if l.err != nil {
		if m.node != nil {
			l.unsent = append(l.unsent, m.node)
		}
		return false
	}
	return l.fill(e, &m.lookup, m.err)
}

// concernsEntryAlone reports whether an error is about an entry of that type in a layer alone: the
// layer does not have the owner of the object, its redirect leads nowhere or must not be followed,
// or no layer has its data.
func (o *Overlay) concernsEntryAlone(typ uint8, layer int, err error) bool {
	switch err {
	case unix.EIO:
		return o.stack.Overrides(layer) || typ == unix.DT_REG && o.stack.FollowsMetacopies()
	case unix.EINVAL, unix.EPERM:
		return typ == unix.DT_DIR || typ == unix.DT_REG
	}
	return false
}

// detailForLocked returns which attributes this reply contains, and notes the thread that lists.
// Preconditions: n.dir.mu is held, n is listed.
func (l *listing) detailForLocked(thread uint32, place uint64) detail {
	if l.n.dir.Visible() == l.n.dir.Subdirs() {
		return allAttributes // there is no file to take a sample of
	}
	if l.o.cfg.Disabled.has(ListingSamples) {
		return allAttributes
	}
	t := l.o.listers.detailFor(thread, place)
	if t != allAttributes {
		l.n.dir.lister.Store(thread)
	}
	return t
}
