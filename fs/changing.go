package fs

import (
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/fs/stack"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// With [Config.LayersChange] other processes change the layers. Then the kernel keeps no names,
// attributes, listings or symbolic links. OPEN is answered, so the kernel drops the pages of a file
// that has changed. Each lookup reads the layers, and a node remembers its object
// (rareState.parts). If its name leads to another object, that object gets a node of its own. The
// old node loses the name. It stands for what is still open of its object, as after a removal.

// justNow is how long [Overlay.refresh] does not look up the parts of a directory again, if it was
// the last one that was looked up. A walk through a path looks a directory up right before it looks
// a name up in it.
const justNow = 50 * time.Microsecond

// runChanging is run for a mount whose layers change. It looks the name up in the layers, even if
// the node is known. Preconditions: no directory's mu is held, the query needs the layers.
func (l *lookup) runChanging() (done bool, err error) {
	o, p := l.o, l.p
	l.copies = o.sharedCopies.Load()
	if err := o.stack.LookUpInLayers(&l.query, l.d, &l.found); err != nil {
		return false, err
	}
	p.dir.mu.Lock()
	known := p.dir.children[l.name]
	same := known != nil && known.isStill(&l.found)
	if !same && l.found.Exists() && l.found.Shared == nil && l.found.Layer == stack.Upper &&
		o.numbers.wantsOriginLocked(p, &l.found) && l.d.Has(stack.Upper) {
		err = l.readHandle()
	}
	p.dir.mu.Unlock()
	var object *sys.Object
	if !same && err == nil {
		object = o.reopen(known)
		l.need = stack.NeedNothing
		if l.askLowers(); l.newDir != nil && l.err == nil {
			l.err = o.initDir(l.newDir, nil)
		}
		err = l.err
	}
	if err == nil {
		p.dir.mu.Lock()
		if same {
			done, err = l.finishSameLocked(known)
		} else {
			done, err = l.finishOtherLocked(known, &object)
		}
		p.dir.mu.Unlock()
	}
	if object != nil {
		object.Close()
	}
	return done, err
}

// finishSameLocked ends a lookup whose name still leads to the object of the known node.
// Preconditions: those of lookInUpperLocked.
func (l *lookup) finishSameLocked(known *Node) (done bool, err error) {
	switch {
	case !l.query.IsUnchanged(&l.p.dir.Dir) || l.p.dir.children[l.name] != known:
		return false, nil
	case !l.o.nodes.Ref(known): // known has been dropped
		delete(l.p.dir.children, l.name)
		return false, nil
	}
	l.node = known
	l.o.renewLocked(known, l.p, &l.found)
	return true, nil
}

// finishOtherLocked ends a lookup whose name leads to another object than that of the known node,
// or whose name had no node. object is the object of known, opened. finishOther clears it if known
// keeps it. Preconditions: those of lookInUpperLocked.
func (l *lookup) finishOtherLocked(known *Node, object **sys.Object) (done bool, err error) {
	if !l.query.IsUnchanged(&l.p.dir.Dir) || l.p.dir.children[l.name] != known {
		return false, nil
	}
	if known != nil {
		l.o.dropNameLocked(known, placed{l.p, l.name}, *object)
		*object = nil
	}
	if !l.found.Exists() {
		return true, nil
	}
	return l.attachLocked()
}

// isStill reports whether f, which was found under a name of n, is the object of n: the same inode,
// or a directory with a part that n has.
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

// partsOf returns the objects of layers that make up what was found.
func partsOf(f *stack.Found) []stack.Part {
	if f.Parts != nil {
		return f.Parts
	}
	return []stack.Part{{Layer: uint16(f.Layer), Dev: f.Stat.Dev, Ino: f.Stat.Ino}}
}

// renewLocked notes where a known object, which was found under a name in p, lies now.
// Precondition: p.dir.mu is held.
func (a *access) renewLocked(n, p *Node, f *stack.Found) {
	if f.Shared != nil {
		return
	}
	n.flags.clear(flagProtectionKnown | flagsProtected)
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
	a.walked.Store(n)
	for _, part := range old {
		if !slices.Contains(f.Parts, part) {
			a.handles.Evict(n.handleKey(int(part.Layer), forDir))
		}
	}
}

// addUpperPartLocked notes that the object, which lay in a lower, lies in the upper now as well.
// Preconditions: n.mu is held.
func (n *Node) addUpperPartLocked(st *sys.Stat) {
	if n.rare == nil || n.rare.parts == nil {
		return
	}
	up := []stack.Part{{Layer: stack.Upper, Dev: st.Dev, Ino: st.Ino}}
	if n.dir != nil {
		up = append(up, n.rare.parts...)
	}
	n.rare.parts = up
}

// refresh looks up the parts of a directory, and of those above it, for a process that has opened
// it or changed into it before. Preconditions: no directory's mu is held.
func (a *access) refresh(n *Node) {
	if !a.layersChange || n.dir == nil {
		return
	}
	if a.walked.Load() == n && time.Now().UnixNano()-n.dir.renewed.Load() < int64(justNow) {
		return
	}
	at := n.place()
	if at.parent == nil || at.unlinked {
		return
	}
	a.refresh(at.parent)
	d := a.openDir(at.parent)
	defer d.release()
	if a.askLowers(at.parent, d, at.name) != nil { // the next request reports the error
		return
	}
	f := &d.answer.found
	var object *sys.Object
	if !n.isStill(f) {
		object = a.reopen(n)
	}
	at.parent.dir.mu.Lock()
	defer at.parent.dir.mu.Unlock()
	switch {
	case !d.answer.query.IsUnchanged(&at.parent.dir.Dir), n.place() != at:
		if object != nil {
			object.Close()
		}
	case n.isStill(f):
		a.renewLocked(n, at.parent, f)
	default:
		a.dropNameLocked(n, at.placed, object)
	}
}

// dropNameLocked takes a name from a node whose object does not have it any more. object is that
// object, opened, so that it stays usable; nil: no name leads to it. Preconditions:
// at.parent.dir.mu is held.
func (a *access) dropNameLocked(n *Node, at placed, object *sys.Object) {
	at.forgetLocked(n)
	switch {
	case object != nil && n.lastName():
		a.keepObject(n, object)
	case object != nil:
		object.Close()
	}
	a.removeName(n, at)
}

// reopen opens the object of n once more, by its name or by a cached handle. Its layer may still
// have the name, while another layer hides it. The result is nil if n is nil. Preconditions: no
// directory's mu is held.
func (a *access) reopen(n *Node) *sys.Object {
	if n == nil {
		return nil
	}
	p := n.place()
	if p.unlinked || p.parent == nil {
		return nil
	}
	if r, err := a.object(&p); err == nil {
		defer r.release()
		if object, err := r.Inode().Open(); err == nil {
			return object
		}
	}
	for _, u := range []purpose{forDir, forWriting, forReading} {
		h := a.handles.Acquire(n.handleKey(p.layer, u))
		if h == nil {
			continue
		}
		defer a.handles.Release(h)
		var object *sys.Object
		var err error
		switch v := h.Value; {
		case v.dir != nil:
			object, err = v.dir.Ref().Open()
		case v.data == nil:
			object, err = v.file.Ref().Open()
		}
		if object != nil && err == nil {
			return object
		}
	}
	return nil
}

// lostName reports whether n has lost its name at p. err is the error of reaching the object of n
// there. If it returns true, the caller reads the place of n again. Preconditions: no directory's
// mu is held.
func (a *access) lostName(n *Node, p *place, err error) bool {
	if err != unix.ESTALE || !a.layersChange || p.unlinked || p.parent == nil {
		return false
	}
	a.dropNameAt(n, p)
	return true
}

func (a *access) dropNameAt(n *Node, p *place) {
	object := a.reopen(n)
	p.parent.dir.mu.Lock()
	defer p.parent.dir.mu.Unlock()
	if n.place() == *p {
		a.dropNameLocked(n, p.placed, object)
	} else if object != nil {
		object.Close()
	}
}

// check returns ESTALE if what lies at p is not the object that was found there.
func (p *place) check(r sys.Ref) error {
	var st sys.Stat
	err := r.Stat(&st)
	if err == unix.ENOENT || err == nil && (st.Dev != p.part.Dev || st.Ino != p.part.Ino) {
		return unix.ESTALE
	}
	return err
}

// stillThere reports whether the name at p still leads to n, before a copy gets that name. If it
// does not, n loses the name. Preconditions: no directory's mu is held, d opens p.parent.
func (a *access) stillThere(n *Node, p *place, d *openDir) (bool, error) {
	if !a.layersChange {
		return true, nil
	}
	if err := a.askLowers(p.parent, d, p.name); err != nil || n.isStill(&d.answer.found) {
		return err == nil, err
	}
	a.dropNameAt(n, p)
	return false, nil
}
