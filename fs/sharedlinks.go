package fs

import (
	"errors"

	"github.com/fuse-overlay/fuse-overlay/copyup"
	"github.com/fuse-overlay/fuse-overlay/fs/stack"
	"github.com/fuse-overlay/fuse-overlay/inodecache"
	"github.com/fuse-overlay/fuse-overlay/internal/lock"
	"github.com/fuse-overlay/fuse-overlay/internal/owner"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// With index=on the names of a linked lower object lead to one node. Once one of them has been changed through, the object is
// the copy in the index, also under the names that the upper does not have. A name that is about to be removed or moved is made
// a link of the copy before, so that the change itself keeps the number of links, in one step.

// sharedKey is the identity of the lower's object; zero where that is not known.
func sharedKey(x *stack.Shared) inodecache.Key { return inodecache.Key{Dev: x.Dev, Ino: x.Ino} }

// knownObject returns the node of an object found under a name, if it has one, with one reference more.
func (o *Overlay) knownObject(f *stack.Found) (n *Node, known bool, err error) {
	if f.IsDir() {
		return nil, false, nil
	}
	if f.Shared != nil && f.Shared.Ino != 0 {
		if n, known := o.nodes.Linked(sharedKey(f.Shared)); known {
			return n, true, nil
		}
	}
	if f.Layer != stack.Upper { // with one link as well: a removed name may still be open
		return nil, false, nil
	}
	n, known = o.nodes.Linked(keyOf(&f.Stat))
	if known && f.Shared != nil {
		err = o.share(n, f.Shared)
	}
	return n, known, err
}

// share notes that the object is a shared one, for a node that was made when that could not be told.
func (o *Overlay) share(n *Node, x *stack.Shared) error {
	n.mu.Lock()
	rare := n.setRareLocked()
	n.mu.Unlock()
	rare.links.Lock()
	defer rare.links.Unlock()
	n.mu.Lock()
	first := rare.shared == nil
	if first {
		rare.shared = x
	}
	n.mu.Unlock()
	if !first {
		return nil
	}
	return o.stack.Recount(x)
}

// linkShared is linkNode for a new node of a shared object. Its links may have changed since it was found, but not unless by a node of
// the object, so not after this one is known.
func (o *Overlay) linkShared(n *Node, f *stack.Found) (first *Node, made bool, err error) {
	defer n.lockLinks()()
	if first, made = o.linkNode(n, f); made && f.Shared != nil && f.Layer == stack.Upper {
		err = o.stack.Recount(f.Shared)
	}
	return first, made, err
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

// lockLinks locks the counts of a shared object, so that no other name of it becomes a link meanwhile. It does nothing for any other
// object, and for none (nil).
func (n *Node) lockLinks() (unlock func()) {
	links := n.linksMu()
	if links == nil {
		return func() {}
	}
	links.Lock()
	return links.Unlock
}

func (n *Node) linksMu() *lock.Mutex[lock.Links] {
	if n == nil {
		return nil
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.rare == nil || n.rare.shared == nil {
		return nil
	}
	return &n.rare.links
}

// stat fills st with the attributes of n's object r, and the number of all its names.
func (n *Node) stat(r owner.Ref, st *sys.Stat) error {
	defer n.lockLinks()()
	err := r.Stat(st)
	if err == nil {
		n.count(st)
	}
	return err
}

// count turns the link count in st, which a layer returned for n's object, into the number of all
// its names. Precondition: lockLinks.
func (n *Node) count(st *sys.Stat) {
	if p := n.place(); p.shared != nil && p.layer == stack.Upper {
		p.shared.Count(st)
	}
}

// statShared fills st with the attributes of a node whose object has names that do not lead to it in the layer. Precondition: no
// directory's mu is held.
func (o *Overlay) statShared(n *Node, st *sys.Stat) error {
	return o.with(n, func(r owner.Ref) error { return n.stat(r, st) })
}

// publishShared makes a staged copy the object, under all its names. Precondition: n.upMu is held.
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
// Preconditions: no directory's mu is held, the name's directory is in the upper.
func (o *Overlay) linkUp(n *Node, at placed) error {
	d := o.open(at.parent)
	defer d.release()
	var f stack.Found
	if err := o.lockEntry(at.parent, d, at.name, &f); err != nil {
		if at.parent.place().gone {
			return nil
		}
		return err
	}
	defer at.parent.dir.mu.Unlock()
	p := n.place()
	switch {
	case p.shared == nil || p.layer != stack.Upper || at.parent.dir.children[at.name] != n || !at.parent.inUpper():
		return nil
	case f.State == stack.InUpper:
		return nil
	case f.Shared == nil || f.Layer != stack.Upper:
		return nil // a layer changed under the mount
	}
	up, err := d.upper()
	if err != nil {
		return err
	}
	defer n.lockLinks()()
	p.shared.Learn(f.Shared)
	return o.stack.LinkUp(&at.parent.dir.Dir, up, at.name, p.shared)
}

// settle stores the link count in the copy of a shared object, before a link is added or removed.
func (o *Overlay) settle(n *Node) error {
	if n.place().shared == nil {
		return nil
	}
	defer n.lockLinks()()
	if p := n.place(); p.layer == stack.Upper && !p.gone {
		return o.stack.RecordLinks(p.shared)
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
	n, err := o.child(at.parent, at.name, &st)
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

// linkRemoved is for when a name of a shared object has gone. Precondition: lockLinks.
func (o *Overlay) linkRemoved(n *Node) {
	if n == nil {
		return
	}
	if p := n.place(); p.shared != nil && p.layer == stack.Upper {
		o.stack.LinkRemoved(p.shared)
	}
}

// errNotShared is returned with locks held, for a name that shareName has to prepare first. No request is answered by it.
var errNotShared = errors.New("the name is not a link of the shared copy yet")
