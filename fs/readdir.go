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

// OpenDir answers OPENDIR with ENOSYS where the kernel then opens by itself and keeps the listing
// (FUSE_NO_OPENDIR_SUPPORT).
func (o *Overlay) OpenDir(_ <-chan struct{}, _ *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	o.counts.add(opOpendir)
	switch {
	case o.cfg.LayersChange:
		*out = fuse.OpenOut{} // the kernel requests each listing
		return fuse.OK
	case o.policy.noOpendir:
		return fuse.ENOSYS
	}
	if !o.policy.strict {
		out.OpenFlags = fuse.FOPEN_KEEP_CACHE | fuse.FOPEN_CACHE_DIR
	}
	return fuse.OK
}

// ReleaseDir answers RELEASEDIR.
func (o *Overlay) ReleaseDir(*fuse.ReleaseIn) { o.counts.add(opReleasedir) }

// Places of the entries that every directory has; those of the index follow.
const (
	placeDot    = 1
	placeDotDot = 2
)

// sizes of struct fuse_direntplus and struct fuse_dirent without the name (linux/fuse.h)
const (
	direntSize     = 24
	direntPlusSize = 128 + direntSize
)

// unknownIno stands for an inode number that cannot be told, as in libfuse (FUSE_UNKNOWN_INO).
const unknownIno = 0xffffffff

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
	view    stack.View
	waiting []meeting // those of entries that need calls on layers
}

// ReadDir answers READDIR: any offset, without a handle.
func (o *Overlay) ReadDir(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	o.counts.add(opReaddir)
	return o.status("readdir", o.list(in, out, false))
}

// ReadDirPlus answers READDIRPLUS: every entry comes with what LOOKUP would tell of it.
func (o *Overlay) ReadDirPlus(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	o.counts.add(opReaddirplus)
	return o.status("readdirplus", o.list(in, out, true))
}

func (o *Overlay) list(in *fuse.ReadIn, out *fuse.DirEntryList, plus bool) error {
	n, err := o.node(in.NodeId)
	if err != nil {
		return err
	}
	if n.dir == nil {
		return unix.ENOTDIR
	}
	l := listings.Get().(*listing)
	*l = listing{o: o, n: n, d: o.open(n), out: out, room: int(in.Size), plus: plus, entries: l.entries[:0], waiting: l.waiting[:0]}
	defer func() {
		for _, n := range l.drop {
			o.forgetOne(n)
		}
		clear(l.entries)
		clear(l.waiting)
		*l = listing{entries: l.entries, waiting: l.waiting}
		listings.Put(l)
	}()
	if err := l.collect(in.Pid, in.Offset); err != nil {
		return err
	}
	if plus && in.Offset == 0 && !o.cfg.LayersChange {
		o.next.listed(n)
	}
	return l.fill()
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
		if err := l.o.lockLoaded(l.n, &toList); err != nil {
			return err
		}
		if !l.n.dir.HasUpper() || l.d.has(stack.Upper) {
			return nil
		}
		l.n.dir.mu.Unlock()
		if _, err := l.d.upper(); err != nil {
			return err
		}
	}
}

// gather chooses the entries, and does for them what needs no lower. Precondition: n.dir.mu is
// held, n indexed and open in the upper.
func (l *listing) gather(thread uint32, offset uint64) {
	o, dir := l.o, l.n.dir
	place, end := uint64(0), uint64(0)
	if offset == 0 {
		end = dir.Begin()
	} else {
		place, end = dir.Resume(offset)
	}
	if o.policy.strict && offset == 0 && l.n.inUpper() && !o.cfg.AccessTimes.NoDirs() {
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
	l.view = o.stack.View(&dir.Dir)
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
		m.name, m.keep, m.sought = e.Name, true, dir.SeekListed(&l.view, e)
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
		m.open = !done && m.err == nil // to begin anew
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
	if m.open && l.err == nil {
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

// tell says how much this reply tells, and notes whose listing it is. Precondition: n.dir.mu is held, n indexed.
func (l *listing) tell(thread uint32, place uint64) telling {
	if l.n.dir.Visible() == l.n.dir.Subdirs() {
		return tellAll // no sample to be had
	}
	t := l.o.listers.lists(thread, place)
	if t != tellAll {
		l.n.dir.lister.Store(thread)
	}
	return t
}

// takes reports whether a further entry fits, and counts it.
func (l *listing) takes(name string) bool {
	size := direntSize
	if l.plus {
		size = direntPlusSize
	}
	size += (len(name) + 7) &^ 7
	l.room -= size
	return l.room >= 0
}

// dots puts "." and ".." into the reply. The kernel wants no attributes of them. Precondition: n.dir.mu is held, n indexed.
func (l *listing) dots(place, end uint64) {
	if place >= placeDotDot {
		return
	}
	up := l.n
	if p := l.n.place(); p.parent != nil {
		up = p.parent
	}
	dots := [...]struct {
		name  string
		place uint64
		node  *Node
	}{{".", placeDot, l.n}, {"..", placeDotDot, up}}
	for _, e := range dots[:howManyDots(&l.n.dir.Dir, end)] {
		if e.place > place && l.takes(e.name) {
			l.add(fuse.DirEntry{Name: e.name, Mode: unix.S_IFDIR, Ino: e.node.ino.Load(), Off: l.n.dir.Offset(e.place, end)})
		}
	}
}

// howManyDots returns how many of "." and ".." a listing has: both, unless its entries would fill the last page of the copy that the kernel
// keeps of it, and the directory has changed. Another listing that began before may then go on at an offset that this one does not
// have. The kernel looks for that offset in its copy, and sends READDIR for the rest if the copy
// lacks it. It does not do so if the copy ends with a page: it takes that for the end of the
// listing (fuse_readdir_cached), and the listing would lack the rest of the names.
func howManyDots(d *stack.Dir, end uint64) int {
	const both = 2
	if !d.Changed() {
		return both
	}
	var copies [both + 1]pages // of a listing without ".", with it, and with both
	for dots := range copies {
		for name := range dots {
			copies[dots].add(name + 1)
		}
	}
	d.List(placeDotDot, end, func(e *stack.Listed) bool {
		for dots := range copies {
			copies[dots].add(len(e.Name))
		}
		return true
	})
	for dots := both; dots > 0; dots-- {
		if copies[dots]%pages(sys.PageSize()) != 0 {
			return dots
		}
	}
	return both
}

// pages is the size of the kernel's copy of a listing, in which no entry lies in two pages (fuse_add_dirent_to_cache).
type pages int

// add adds an entry whose name has that length.
func (p *pages) add(name int) {
	page, size := pages(sys.PageSize()), pages(direntSize+(name+7)&^7)
	if rest := *p % page; rest+size > page {
		*p += page - rest
	}
	*p += size
}

// add puts an entry into the reply and returns where its attributes go, if they are told. An entry without a node id is one
// whose attributes are not (fuse_direntplus_link).
func (l *listing) add(e fuse.DirEntry) *fuse.EntryOut {
	if l.plus {
		return l.out.AddDirLookupEntry(e)
	}
	l.out.AddDirEntry(e)
	return nil
}

// fill writes the reply, with no lock held: a directory's link count may need its own listing.
func (l *listing) fill() error {
	entries := l.entries
	for i := range entries {
		e := &entries[i]
		if e.node == nil {
			l.add(fuse.DirEntry{Name: e.name, Mode: e.kind, Ino: e.ino, Off: e.offset})
			continue
		}
		var a fuse.Attr
		if err := l.o.attr(e.node, &e.st, &a); err != nil {
			for ; i < len(entries); i++ {
				if n := entries[i].node; n != nil {
					l.drop = append(l.drop, n)
				}
			}
			if i > 0 && len(l.out.Bytes()) > 0 {
				return nil // the READDIR that goes on from there returns it
			}
			return err
		}
		out := l.add(fuse.DirEntry{Name: e.name, Mode: e.node.kind, Ino: a.Ino, Off: e.offset})
		if out == nil {
			l.drop = append(l.drop, e.node)
			continue
		}
		out.Attr = a
		l.o.entryTimeouts(e.node, out)
	}
	return nil
}
