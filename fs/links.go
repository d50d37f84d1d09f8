package fs

import (
	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/copyup"
	"github.com/fuse-overlay/fuse-overlay/fs/stack"
	"github.com/fuse-overlay/fuse-overlay/inodecache"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// With index=on the names of a linked lower object lead to one node. Once one of them has been changed through, the object is
// the copy in the index, also under the names that the upper does not have. A name that is about to be removed or moved is made
// a link of the copy before, so that the change itself keeps the number of links, in one step.

// sharedKey is the identity of the lower's object; zero where that is not known.
func sharedKey(x *stack.Shared) inodecache.Key { return inodecache.Key{Dev: x.Dev, Ino: x.Ino} }

// knownObject returns the node of an object found under a name, if it has one, with one reference more.
func (o *Overlay) knownObject(f *stack.Found) (*Node, bool) {
	if f.IsDir() {
		return nil, false
	}
	if f.Shared != nil && f.Shared.Ino != 0 {
		if n, ok := o.nodes.Linked(sharedKey(f.Shared)); ok {
			return n, true
		}
	}
	if f.Layer != stack.Upper { // with one link as well: a removed name may still be open
		return nil, false
	}
	n, ok := o.nodes.Linked(keyOf(&f.Stat))
	if ok && f.Shared != nil {
		n.share(f.Shared)
	}
	return n, ok
}

// share notes that the object is a shared one, for a node that was made when that could not be told.
func (n *Node) share(x *stack.Shared) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if rare := n.setRareLocked(); rare.shared == nil {
		rare.shared = x
	}
}

// linkNode makes a new node that of its object, for other names to find. first is the one that was made at the same time, with
// one reference more, if there is one.
func (o *Overlay) linkNode(n *Node, f *stack.Found) (first *Node, made bool) {
	var keys []inodecache.Key
	if f.Shared != nil && f.Shared.Ino != 0 {
		keys = append(keys, sharedKey(f.Shared))
	}
	if f.Layer == stack.Upper && (f.Shared != nil || manyLinks(&f.Stat)) {
		keys = append(keys, keyOf(&f.Stat))
	}
	for i, key := range keys {
		if first, made := o.nodes.Link(key, n); !made {
			for _, linked := range keys[:i] {
				o.nodes.Unlink(linked, n)
			}
			return first, false
		}
	}
	return n, true
}

// count makes the link count of n's object, as a layer tells it, that of all its names. Precondition: renameMu R.
func (n *Node) count(st *sys.Stat) {
	if p := n.place(); p.shared != nil && p.layer == stack.Upper {
		p.shared.Count(st)
	}
}

// statShared fills st with the attributes of a node whose object has names that do not lead to it in the layer. Precondition:
// renameMu R.
func (o *Overlay) statShared(n *Node, st *sys.Stat) error {
	for {
		p := n.place()
		r, err := o.object(p)
		if err == nil {
			err = r.Stat(st)
			r.release()
		}
		if n.place() != p { // copied up meanwhile
			continue
		}
		if err == nil {
			n.count(st)
		}
		return err
	}
}

// publishShared makes a staged copy the object, under all its names. Preconditions: n.upMu and renameMu R.
func (o *Overlay) publishShared(n *Node, p place, staged *copyup.Staged, data *stack.Data) error {
	file := staged.File()
	if err := o.stack.PublishCopy(p.shared, staged); err != nil {
		return err
	}
	var now sys.Stat
	err := o.stack.Copy(p.shared).Stat(&now)
	key := keyOf(&now)
	if err == nil {
		o.numbers.SetOrigin(key, n.ino.Load())
		o.nodes.Link(key, n)
	}
	n.mu.Lock()
	n.layer, n.key = stack.Upper, key
	n.setDataLocked(data)
	n.mu.Unlock()
	o.keepStaged(n, file, data)
	o.handles.Evict(n.handleKey(p.layer, useRead))
	return err
}

// linkUp makes a name of n, whose object has a copy in the index, a link of that; nothing where n has lost the name.
// Preconditions: renameMu is not held, the name's directory is in the upper.
func (o *Overlay) linkUp(n *Node, at placed) error {
	o.renameMu.Lock() // for all other changes of n's names, and all that look at its link count
	defer o.renameMu.Unlock()
	p := n.place()
	if p.shared == nil || p.layer != stack.Upper || at.parent.dir.children[at.name] != n || !at.parent.inUpper() {
		return nil
	}
	d := o.open(at.parent)
	defer d.release()
	var f stack.Found
	err := o.stack.Load(&at.parent.dir.Dir, d)
	if err == nil {
		err = o.stack.Lookup(&at.parent.dir.Dir, d, at.name, &f)
	}
	if err != nil || f.State == stack.InUpper {
		return err
	}
	if f.Shared == nil || f.Layer != stack.Upper {
		return nil // a layer changed under the mount
	}
	up, err := d.upper()
	if err != nil {
		return err
	}
	p.shared.Learn(f.Shared)
	return o.stack.LinkUp(&at.parent.dir.Dir, up, at.name, p.shared)
}

// settle makes the copy of a shared object say how many links there are, before one is added or removed. Precondition: renameMu
// is not held.
func (o *Overlay) settle(n *Node) error {
	if n.place().shared == nil {
		return nil
	}
	o.renameMu.Lock()
	defer o.renameMu.Unlock()
	if p := n.place(); p.layer == stack.Upper && !p.gone {
		return o.stack.Settle(p.shared)
	}
	return nil
}

// shareName prepares a name that is about to be removed, replaced or moved (ovl_nlink_start). Preconditions: none of the locks
// is held.
func (o *Overlay) shareName(at placed) error {
	if !o.stack.KeepsLinks() {
		return nil
	}
	var st sys.Stat
	o.renameMu.RLock()
	n, err := o.child(at.parent, at.name, &st)
	o.renameMu.RUnlock()
	if err != nil || n == nil {
		return err
	}
	defer o.forgetOne(n)
	if n.place().shared == nil {
		return nil
	}
	if err := o.copyUp(n, noData); err != nil {
		return err
	}
	if err := o.copyUp(at.parent, wholeFile); err != nil {
		return err
	}
	if err := o.linkUp(n, at); err != nil {
		return err
	}
	return o.settle(n)
}

// linkRemoved is for when a name of a shared object has gone. Preconditions: renameMu R.
func (o *Overlay) linkRemoved(n *Node) {
	if n == nil {
		return
	}
	if p := n.place(); p.shared != nil && p.layer == stack.Upper {
		o.stack.LinkRemoved(p.shared)
	}
}

// errNotShared says that a name must be prepared by shareName first. It is told to nobody.
const errNotShared = unix.ERESTART
