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

// listing is one READDIR or READDIRPLUS under way.
type listing struct {
	o    *Overlay
	n    *Node
	d    *openDir
	out  *fuse.DirEntryList
	room int // bytes left in the reply
	plus bool
	// doubtful: entries may have other inode numbers than their objects in the layers.
	doubtful bool

	err  error
	drop []*Node // whose reference the kernel does not get

	entries []listed
	waiting []meeting // those of entries that need calls on layers
}

// listings are those that nobody uses, with the room for entries that they had.
var listings = sync.Pool{New: func() any { return &listing{} }}

// listed is an entry on its way into the reply.
type listed struct {
	name   string
	offset uint64 // where the listing goes on after it
	layer  int
	typ    uint8  // DT_*, as listed
	kind   uint32 // S_IFMT
	ino    uint64
	node   *Node // nil: told without its attributes
	wait   int   // for which of those waiting, counted from 1; 0: for none
	shared bool  // its attributes may have been changed through another name since
	st     sys.Stat
}

// collect finds the entries that fit the reply, with a reference on each node. It makes calls on
// lowers with no lock held.
func (l *listing) collect(thread uint32, offset uint64) error {
	defer l.d.release()
	if offset == 0 {
		l.o.refresh(l.n)
	}
	if err := l.lock(offset); err != nil || l.n.place().gone {
		if err == nil {
			l.n.dir.mu.Unlock()
		} else if l.n.place().gone {
			err = nil
		}
		return err
	}
	l.gather(thread, offset)
	l.n.dir.mu.Unlock()
	if len(l.waiting) > 0 {
		l.askAll()
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

// gather chooses the entries, and does for them what needs no lower. Precondition: n.dir.mu is
// held, n listed and open in the upper.
func (l *listing) gather(thread uint32, offset uint64) {
	o, dir := l.o, l.n.dir
	place, end := uint64(0), uint64(0)
	if offset == 0 {
		end = dir.Begin()
	} else {
		place, end = dir.Resume(offset)
	}
	if o.policy.StrictAtime && offset == 0 && l.n.inUpper() && !o.cfg.AccessTimes.NoDirs() {
		if up, err := l.d.upper(); err == nil {
			_ = up.MarkRead() // the listing itself comes from the index
		}
	}
	l.doubtful = o.doubtful(l.n)
	l.dots(place, end)
	tell := tellNames
	if l.plus {
		tell = l.tell(thread, place)
	}
	dir.List(place, end, func(e *stack.Listed) bool {
		if !l.takes(e.Name) {
			return false
		}
		next := listed{name: e.Name, offset: dir.Offset(e.Place, end), layer: e.Layer, typ: e.Type}
		if e.Ino != 0 && (!l.plus || e.Type != unix.DT_DIR && tell != tellAll) {
			next.ino = o.numbers.Of(inodecache.Key{Dev: o.stack.Device(e.Layer), Ino: e.Ino})
		}
		if next.ino != 0 && !l.hasAnother(e, next.ino) {
			next.kind = uint32(e.Type) << 12 // DTTOIF of libc
			l.entries = append(l.entries, next)
			if tell == tellButOne {
				tell = tellAll
			}
			return true
		}
		l.waiting = append(l.waiting, meeting{})
		m := &l.waiting[len(l.waiting)-1]
		m.name, m.keep, m.query = e.Name, true, e.Query()
		var done bool
		var err error
		if !o.cfg.LayersChange {
			done, err = o.begin(l.n, l.d, m)
		}
		if !done && err == nil {
			next.wait = len(l.waiting)
			l.entries = append(l.entries, next)
			return true
		}
		if m.former != nil {
			l.drop = append(l.drop, m.former)
		}
		if l.met(&next, m, err) {
			l.entries = append(l.entries, next)
		}
		*m = meeting{}
		l.waiting = l.waiting[:len(l.waiting)-1]
		return l.err == nil
	})
}

// met fills in an entry that has been looked at, and reports whether the reply gets it. It sets l.err where the listing ends before it.
func (l *listing) met(e *listed, m *meeting, err error) bool {
	switch {
	case l.o.ofItsOwn(e.typ, e.layer, err):
		e.notLookedAt(e.typ)
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

// askAll requests from the layers what the waiting entries need, and calls settleDirs for the new
// directories. The listing ends before an entry whose error is not its own.
func (l *listing) askAll() {
	o := l.o
	var dirs []*Node
	var of []*meeting
	for i := range l.waiting {
		m := &l.waiting[i]
		if o.cfg.LayersChange {
			continue // each by itself, below
		}
		o.askAside(l.n, l.d, m)
		if m.fresh != nil && m.err == nil {
			dirs, of = append(dirs, m.fresh), append(of, m)
		}
	}
	if len(dirs) > 0 {
		errs := make([]error, len(dirs))
		o.settleDirs(dirs, errs)
		for k, m := range of {
			m.err = errs[k]
		}
	}
	l.n.dir.mu.Lock()
	for i := range l.waiting {
		m := &l.waiting[i]
		done := false
		if !o.cfg.LayersChange {
			done, m.err = o.finish(l.n, l.d, m)
		}
		m.anew = !done && m.err == nil
	}
	l.n.dir.mu.Unlock()
	last := l.err
	l.err = nil
	kept := 0
	for i := range l.entries {
		if !l.afterAsking(&l.entries[i]) {
			continue
		}
		if kept != i {
			l.entries[kept] = l.entries[i]
		}
		kept++
	}
	clear(l.entries[kept:])
	l.entries = l.entries[:kept]
	l.err = cmp.Or(l.err, last)
}

// afterAsking fills in an entry that has waited, if it has, and reports whether the reply gets it: not behind one at which the listing ends.
func (l *listing) afterAsking(e *listed) bool {
	if e.wait == 0 {
		if l.err != nil && e.node != nil {
			l.drop = append(l.drop, e.node)
		}
		return l.err == nil
	}
	m := &l.waiting[e.wait-1]
	l.o.abandon(m)
	if m.anew && l.err == nil {
		m.node, m.err = l.o.child(l.n, m.name, &m.found.Stat)
		m.found.Shared = nil // child has seen to that
	}
	if l.err != nil {
		if m.node != nil {
			l.drop = append(l.drop, m.node)
		}
		return false
	}
	return l.met(e, m, m.err)
}

// hasAnother reports whether the object of a lower that an entry is may have another number than ino, its own. Precondition:
// n.dir.mu is held.
func (l *listing) hasAnother(e *stack.Listed, ino uint64) bool {
	return l.doubtful || l.o.apart.Load() && !l.o.claims.Free(ino, l.n.dir.children[e.Name])
}

// notLookedAt makes an entry one whose error is told to who looks at it, while its directory can be listed.
func (e *listed) notLookedAt(typ uint8) {
	e.node, e.kind, e.ino = nil, uint32(typ)<<12, unknownIno
}

// ofItsOwn reports whether an error is about an entry of that type in a layer alone: nobody can tell whose the object is, its
// redirect leads nowhere or must not be followed, or no layer has its data.
func (o *Overlay) ofItsOwn(typ uint8, layer int, err error) bool {
	switch err {
	case unix.EIO:
		return o.stack.Overrides(layer) || typ == unix.DT_REG && o.stack.FollowsMetacopies()
	case unix.EINVAL, unix.EPERM:
		return typ == unix.DT_DIR || typ == unix.DT_REG
	}
	return false
}

// tell says how much this reply tells, and notes whose listing it is. Precondition: n.dir.mu is held, n listed.
func (l *listing) tell(thread uint32, place uint64) telling {
	if l.n.dir.Visible() == l.n.dir.Subdirs() {
		return tellAll // no sample to be had
	}
	if l.o.cfg.Disabled.has(ListingSamples) {
		return tellAll
	}
	t := l.o.listers.lists(thread, place)
	if t != tellAll {
		l.n.dir.lister.Store(thread)
	}
	return t
}
