package fs

import (
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/fs/stack"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// With [Config.LayersChange] others change the layers. The kernel keeps no names, attributes, listings and symbolic links then, and
// OPEN is answered, so that the pages of a file are dropped when it has changed. Here each look-up looks into the layers, and a node
// remembers which object it stands for (rareState.parts). If its name leads to another object, that gets a node of its own. The old
// node loses the name, and stands for what is still open of its object, as after a removal.

// justNow is how long the parts of a directory are not looked up again by [Overlay.refresh], if it was the last that was looked up: a walk
// through a path looks the directory up right before it looks into it.
const justNow = 50 * time.Microsecond

// childAnew is childLocked where layers change. Preconditions: those of childLocked.
func (o *Overlay) childAnew(p *Node, d *openDir, name string, st *sys.Stat) (*Node, error) {
	var f stack.Found
	if err := o.stack.Lookup(&p.dir.Dir, d, name, &f); err != nil {
		return nil, err
	}
	if n := p.dir.children[name]; n != nil {
		if n.isStill(&f) && o.nodes.Ref(n) {
			*st = f.Stat
			o.renew(n, p, &f)
			return n, nil
		}
		o.lose(n, placed{p, name})
	}
	if !f.Exists() {
		return nil, nil
	}
	if err := o.recall(p, d, name, &f); err != nil {
		return nil, err
	}
	return o.found(p, strings.Clone(name), &f, st)
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

// renew notes where a known object, found under a name in p, lies now. Preconditions: renameMu R, p.dir.mu held.
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

// refresh finds out which parts a directory has, and those above it, for a process that has come into it before. Precondition:
// renameMu R.
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
	at.parent.dir.mu.Lock()
	defer at.parent.dir.mu.Unlock()
	var f stack.Found
	err := o.stack.Load(&at.parent.dir.Dir, d)
	if err == nil {
		err = o.stack.Lookup(&at.parent.dir.Dir, d, at.name, &f)
	}
	switch {
	case err != nil, n.place() != at: // the next request is told
	case n.isStill(&f):
		o.renew(n, at.parent, &f)
	default:
		o.lose(n, at.placed)
	}
}

// lose takes a name from a node whose object does not have it any more. What is open of the object stays usable. Preconditions: renameMu
// R, at.parent.dir.mu held.
func (o *Overlay) lose(n *Node, at placed) {
	at.forget(n)
	if n.lastName() {
		if kept := o.stillOpen(n); kept != nil {
			n.setKept(kept)
		}
	}
	n.removeName(at)
}

// stillOpen opens n's object once more: where its layer has it still under a name that another layer hides now, or by a
// handle. Precondition: renameMu R.
func (o *Overlay) stillOpen(n *Node) *sys.Object {
	p := n.place()
	if p.gone || p.parent == nil {
		return nil
	}
	if r, err := o.object(p); err == nil {
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

// lost is for when n's object was not found at p, with err: it reports whether n has lost that name by it, so that a look at its
// place tells more. Preconditions: renameMu R, no directory's mu held.
func (o *Overlay) lost(n *Node, p place, err error) bool {
	if err != unix.ESTALE || !o.cfg.LayersChange || p.gone || p.parent == nil {
		return false
	}
	p.parent.dir.mu.Lock()
	defer p.parent.dir.mu.Unlock()
	if n.place() == p {
		o.lose(n, p.placed)
	}
	return true
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

// stillThere reports whether n is what its name at p leads to, before a copy takes that name; if it is not, n loses it. Preconditions:
// renameMu R, p.parent.dir.mu held, d opens p.parent.
func (o *Overlay) stillThere(n *Node, p place, d *openDir) (bool, error) {
	if !o.cfg.LayersChange {
		return true, nil
	}
	var f stack.Found
	dir := &p.parent.dir.Dir
	err := o.stack.Load(dir, d)
	if err == nil {
		err = o.stack.Lookup(dir, d, p.name, &f)
	}
	if err != nil || n.isStill(&f) {
		return err == nil, err
	}
	o.lose(n, p.placed)
	return false, nil
}

// openAnew answers OPEN where layers change, but for passthrough. The object stays open until RELEASE, so that who has it open goes
// on reading it whatever its name leads to later. Who opens it for writing writes past the page cache, as with passthrough, for there is
// no writeback cache (docs/design/mapped-append.md).
//
// A file of a lower that says size 0 is read past the page cache too: the kernel reads no further than the size it knows, and
// files of proc and cgroup2 have data all the same.
func (o *Overlay) openAnew(n *Node, flags uint32, out *fuse.OpenOut) error {
	*out = fuse.OpenOut{OpenFlags: o.pagesOf(n)}
	h, err := o.file(n, useRead)
	switch err {
	case nil:
	case unix.ESTALE: // the kernel looks the name up again (do_filp_open)
		return err
	default:
		return nil // told at read
	}
	switch {
	case flags&unix.O_ACCMODE != unix.O_RDONLY:
		if o.policy.offered&fuse.CAP_DIRECT_IO_ALLOW_MMAP != 0 {
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

// pagesOf returns whether the kernel may keep the pages that it has of n for who opens it now, as flags of OPEN.
func (o *Overlay) pagesOf(n *Node) uint32 {
	if !o.cfg.LayersChange || o.policy.strict {
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

// version tells one state of a file's data from another.
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

	mu   sync.Mutex // guards the rest
	last uint64
	held map[uint64]*held
}

// add holds h, which is in use, until remove, and returns a handle for the kernel, in which the bit of directHandle is free; beyond the
// bound it calls release, and the handle is 0.
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
