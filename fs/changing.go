package fs

import (
	"slices"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/fs/stack"
	"github.com/fuse-overlay/fuse-overlay/internal/lock"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// With [Config.LayersChange] other processes change the layers. Then the kernel keeps no names,
// attributes, listings or symbolic links. OPEN is answered, so the kernel drops the pages of a file
// that has changed. Each look-up looks into the layers, and a node remembers which object it stands
// for (rareState.parts). If its name leads to another object, that object gets a node of its own.
// The old node loses the name, and stands for what is still open of its object, as after a removal.

// justNow is how long the parts of a directory are not looked up again by [Overlay.refresh], if it was the last that was looked up: a walk
// through a path looks the directory up right before it looks into it.
const justNow = 50 * time.Microsecond

// meetAnew is the meeting of a mount whose layers change. It looks the name up in the layers, even
// if the node is known. Preconditions: no directory's mu is held, the query needs the layers.
func (o *Overlay) meetAnew(p *Node, d *openDir, m *meeting) (done bool, err error) {
	if err := o.stack.LookUpInLayers(&m.query, d, &m.found); err != nil {
		return false, err
	}
	p.dir.mu.Lock()
	known := p.dir.children[m.name]
	still := known != nil && known.isStill(&m.found)
	if !still && m.found.Exists() && m.found.Shared == nil && m.found.Layer == stack.Upper && o.wantsOrigin(p, &m.found) && d.Has(stack.Upper) {
		up, errUp := d.upper()
		if err = errUp; err == nil {
			m.handle, m.hasHandle, err = o.stack.OriginHandle(up.At(m.name))
		}
	}
	p.dir.mu.Unlock()
	var kept *sys.Object
	if !still && err == nil {
		kept = o.stillOpen(known)
		m.need = stack.NeedNothing
		if o.askAside(p, d, m); m.fresh != nil && m.err == nil {
			m.err = o.settleOne(m.fresh, nil)
		}
		err = m.err
	}
	if err == nil {
		p.dir.mu.Lock()
		done, err = o.finishAnew(p, d, m, known, still, &kept)
		p.dir.mu.Unlock()
	}
	if kept != nil {
		kept.Close()
	}
	return done, err
}

// finishAnew ends a meeting where layers change. kept is what was known under the name, and is not any more, still open. Preconditions:
// those of begin.
func (o *Overlay) finishAnew(p *Node, d *openDir, m *meeting, known *Node, still bool, kept **sys.Object) (done bool, err error) {
	switch {
	case !m.query.IsUnchanged(&p.dir.Dir) || p.dir.children[m.name] != known:
		return false, nil
	case still && o.nodes.Ref(known):
		m.node = known
		o.renew(known, p, &m.found)
		return true, nil
	case still:
		delete(p.dir.children, m.name) // it has been dropped
		return false, nil
	case known != nil:
		o.lose(known, placed{p, m.name}, *kept)
		*kept = nil
	}
	if !m.found.Exists() {
		return true, nil
	}
	return o.attach(p, d, m)
}

// isStill reports whether what was found under a name of n is its object: the same inode, or a directory with a part that n has.
func (n *Node) isStill(f *stack.Found) bool {
	if !f.Exists() || f.Stat.Mode&unix.S_IFMT != n.kind {
		return false
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	rare := n.rareLocked()
	if f.Shared != nil || rare.shared != nil {
		return f.Shared != nil && rare.shared != nil && sharedKey(f.Shared) == sharedKey(rare.shared)
	}
	return slices.ContainsFunc(partsOf(f), func(p stack.Part) bool { return slices.Contains(rare.parts, p) })
}

// partsOf are the objects of layers that make up what was found.
func partsOf(f *stack.Found) []stack.Part {
	if f.Parts != nil {
		return f.Parts
	}
	return []stack.Part{{Layer: uint16(f.Layer), Dev: f.Stat.Dev, Ino: f.Stat.Ino}}
}

// renew notes where a known object, found under a name in p, lies now. Precondition: p.dir.mu is held.
func (o *Overlay) renew(n, p *Node, f *stack.Found) {
	if f.Shared != nil {
		return
	}
	n.flags.And(^uint32(protectionKnown | immutable | appendOnly))
	n.mu.Lock()
	rare := n.setRareLocked()
	old := rare.parts
	rare.parts, rare.data, n.layer = partsOf(f), f.Data, int32(f.Layer)
	if f.Layer == stack.Upper {
		n.key = keyOf(&f.Stat)
	}
	n.mu.Unlock()
	if n.dir == nil {
		return
	}
	n.dir.mu.Lock()
	n.dir.Renew(f.Dirs, &p.dir.Dir)
	n.dir.mu.Unlock()
	n.dir.renewed.Store(time.Now().UnixNano())
	o.walked.Store(n)
	for _, part := range old {
		if !slices.Contains(f.Parts, part) {
			o.handles.Evict(n.handleKey(int(part.Layer), useDir))
		}
	}
}

// raisedLocked notes that the object, which lay in a lower, lies in the upper now as well. Precondition: n.mu is held.
func (n *Node) raisedLocked(st *sys.Stat) {
	if n.rare == nil || n.rare.parts == nil {
		return
	}
	up := []stack.Part{{Layer: stack.Upper, Dev: st.Dev, Ino: st.Ino}}
	if n.dir != nil {
		up = append(up, n.rare.parts...)
	}
	n.rare.parts = up
}

// refresh finds out which parts a directory has, and those above it, for a process that has come into it before. Precondition: no
// directory's mu is held.
func (o *Overlay) refresh(n *Node) {
	if !o.cfg.LayersChange || n.dir == nil {
		return
	}
	if o.walked.Load() == n && time.Now().UnixNano()-n.dir.renewed.Load() < int64(justNow) {
		return
	}
	at := n.place()
	if at.parent == nil || at.gone {
		return
	}
	o.refresh(at.parent)
	d := o.open(at.parent)
	defer d.release()
	if o.ask(at.parent, d, at.name) != nil { // the next request reports the error
		return
	}
	f := &d.answer.found
	var kept *sys.Object
	if !n.isStill(f) {
		kept = o.stillOpen(n)
	}
	at.parent.dir.mu.Lock()
	defer at.parent.dir.mu.Unlock()
	switch {
	case !d.answer.query.IsUnchanged(&at.parent.dir.Dir), n.place() != at:
		if kept != nil {
			kept.Close()
		}
	case n.isStill(f):
		o.renew(n, at.parent, f)
	default:
		o.lose(n, at.placed, kept)
	}
}

// lose takes a name from a node whose object does not have it any more. kept is the object, still open, so that it stays usable; nil: it
// cannot be reached. Precondition: at.parent.dir.mu is held.
func (o *Overlay) lose(n *Node, at placed, kept *sys.Object) {
	at.forget(n)
	switch {
	case kept != nil && n.lastName():
		n.setKept(kept)
	case kept != nil:
		kept.Close()
	}
	n.removeName(at)
}

// stillOpen opens the object of n once more, by its name or by a cached handle. Its layer may still
// have the name, which another layer hides now. It returns nil if n is nil. Precondition: no
// directory's mu is held.
func (o *Overlay) stillOpen(n *Node) *sys.Object {
	if n == nil {
		return nil
	}
	p := n.place()
	if p.gone || p.parent == nil {
		return nil
	}
	if r, err := o.object(&p); err == nil {
		defer r.release()
		if kept, err := r.Inode().Open(); err == nil {
			return kept
		}
	}
	for _, u := range []use{useDir, useWrite, useRead} {
		h := o.handles.Acquire(n.handleKey(p.layer, u))
		if h == nil {
			continue
		}
		defer o.handles.Release(h)
		var kept *sys.Object
		var err error
		switch v := h.Value; {
		case v.dir != nil:
			kept, err = v.dir.Ref().Open()
		case v.data == nil:
			kept, err = v.file.Ref().Open()
		}
		if kept != nil && err == nil {
			return kept
		}
	}
	return nil
}

// lost is called when the object of n was not found at p, with err. It reports whether n has lost
// that name. The caller then reads the place of n anew. Precondition: no directory's mu is held.
func (o *Overlay) lost(n *Node, p *place, err error) bool {
	if err != unix.ESTALE || !o.cfg.LayersChange || p.gone || p.parent == nil {
		return false
	}
	o.loseAt(n, p)
	return true
}

func (o *Overlay) loseAt(n *Node, p *place) {
	kept := o.stillOpen(n)
	p.parent.dir.mu.Lock()
	defer p.parent.dir.mu.Unlock()
	if n.place() == *p {
		o.lose(n, p.placed, kept)
	} else if kept != nil {
		kept.Close()
	}
}

// check returns ESTALE where what lies at p is not the object that was found there.
func (p *place) check(r sys.Ref) error {
	var st sys.Stat
	err := r.Stat(&st)
	if err == unix.ENOENT || err == nil && (st.Dev != p.part.Dev || st.Ino != p.part.Ino) {
		return unix.ESTALE
	}
	return err
}

// stillThere reports whether n is what its name at p leads to, before a copy takes that name; if it is not, n loses it. Preconditions: no
// directory's mu is held, d opens p.parent.
func (o *Overlay) stillThere(n *Node, p *place, d *openDir) (bool, error) {
	if !o.cfg.LayersChange {
		return true, nil
	}
	if err := o.ask(p.parent, d, p.name); err != nil || n.isStill(&d.answer.found) {
		return err == nil, err
	}
	o.loseAt(n, p)
	return false, nil
}

// openAnew answers OPEN where layers change, but for passthrough. The object stays open until
// RELEASE, so a process that has it open still reads it when the name leads elsewhere. A file that is
// open for writing is written past the page cache, as with passthrough, because there is no writeback
// cache (docs/design/mapped-append.md).
//
// A file of a lower that reports size 0 is read past the page cache too. The kernel reads up to the
// size it knows, and files of proc and cgroup2 have data nevertheless.
func (o *Overlay) openAnew(n *Node, flags uint32, out *fuse.OpenOut) error {
	*out = fuse.OpenOut{OpenFlags: o.pagesOf(n)}
	h, err := o.file(n, useRead)
	switch err {
	case nil:
	case unix.ESTALE: // the kernel looks the name up again (do_filp_open)
		return err
	default:
		return nil // READ returns the error
	}
	switch {
	case flags&unix.O_ACCMODE != unix.O_RDONLY:
		if o.policy.Offered&fuse.CAP_DIRECT_IO_ALLOW_MMAP != 0 {
			n.flags.Or(direct)
			out.OpenFlags, out.Fh = out.OpenFlags|fuse.FOPEN_DIRECT_IO, directHandle
		}
	case !n.inUpper():
		var st sys.Stat
		if err := h.Value.file.Ref().Stat(&st); err == nil && st.Size == 0 {
			out.OpenFlags, out.Fh = out.OpenFlags|fuse.FOPEN_DIRECT_IO, directHandle
		}
	}
	out.Fh |= o.pins.add(h, o.handles.Release)
	return nil
}

// pagesOf returns whether the kernel may keep the pages that it has of n over this open, as flags
// of OPEN.
func (o *Overlay) pagesOf(n *Node) uint32 {
	if !o.cfg.LayersChange || o.policy.StrictAtime {
		return o.keepCache()
	}
	var now version
	h, err := o.file(n, useRead)
	if err == nil {
		var st sys.Stat
		if err = h.Value.file.Ref().Stat(&st); err == nil {
			now = versionOf(&st, time.Now())
		}
		o.handles.Release(h)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	rare := n.setRareLocked()
	same := now != version{} && now == rare.pages
	if rare.pages = now; same {
		return fuse.FOPEN_KEEP_CACHE
	}
	return 0
}

// version distinguishes one state of a file's data from another.
type version struct {
	part         stack.Part
	size         int64
	mtime, ctime unix.Timespec
}

// Steps of the times that file systems keep: those of Linux are a tick of at most 10 ms, those of some formats and servers whole seconds.
const (
	fineStep   = 20 * time.Millisecond
	coarseStep = 2 * time.Second
)

// versionOf is zero, which equals no state, where the file may be changed once more with the same times.
func versionOf(st *sys.Stat, now time.Time) version {
	step := fineStep
	if st.Ctim.Nsec == 0 && st.Mtim.Nsec == 0 {
		step = coarseStep
	}
	if age := now.Sub(time.Unix(st.Ctim.Unix())); age < step {
		return version{}
	}
	return version{stack.Part{Dev: st.Dev, Ino: st.Ino}, st.Size, st.Mtim, st.Ctim}
}

// pins holds the files open that are open in the mount, up to a bound.
type pins struct {
	most int // immutable

	mu   lock.Mutex[lock.Leaf] // guards the rest
	last uint64
	held map[uint64]*held
}

// add holds h, which is in use, until remove. It returns a handle for the kernel, in which the bit
// of directHandle is free. Beyond the bound it calls release and returns 0.
func (p *pins) add(h *held, release func(*held)) (fh uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.held) >= p.most {
		release(h)
		return 0
	}
	if p.held == nil {
		p.held = map[uint64]*held{}
	}
	p.last += directHandle << 1
	p.held[p.last] = h
	return p.last
}

// remove returns what fh holds; nil: nothing.
func (p *pins) remove(fh uint64) *held {
	fh &^= directHandle
	p.mu.Lock()
	defer p.mu.Unlock()
	h := p.held[fh]
	delete(p.held, fh)
	return h
}
