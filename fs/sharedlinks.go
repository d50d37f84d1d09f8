package fs

import (
	"errors"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/fs/stack"
	"github.com/fuse-overlay/fuse-overlay/inodecache"
	"github.com/fuse-overlay/fuse-overlay/internal/lock"
	"github.com/fuse-overlay/fuse-overlay/internal/owner"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// With index=on all names of a linked lower file lead to one node. After a change through one of
// them, the object is the copy in the index, also under the names that the upper does not have. A
// name that is about to be removed or moved becomes a link of the copy before. So the change
// itself, in one step, keeps the number of links right.

// sharedKey returns the identity of the lower's object; zero: not known.
func sharedKey(x *stack.Shared) inodecache.Key { return inodecache.Key{Dev: x.Dev, Ino: x.Ino} }

// knownObject returns the node of an object found under a name, if it has one, with one reference
// more.
func (t *tree) knownObject(f *stack.Found) (n *Node, known bool, err error) {
	if f.IsDir() {
		return nil, false, nil
	}
	// Another process can remove an object from a layer that changes. Its inode number may then be an
	// object of another kind.
	isOf := func(n *Node) bool { return n.kind == f.Stat.Mode&unix.S_IFMT }
	if f.Shared != nil && f.Shared.Ino != 0 {
		if n, known := t.nodes.Linked(sharedKey(f.Shared), isOf); known {
			return n, true, nil
		}
	}
	if f.Layer != stack.Upper { // with one link as well: a process may have a removed name open
		return nil, false, nil
	}
	n, known = t.nodes.Linked(keyOf(&f.Stat), isOf)
	if known && f.Shared != nil {
		err = t.share(n, f.Shared)
	}
	return n, known, err
}

// share notes that the object is a shared one. The node may be older than that knowledge.
func (t *tree) share(n *Node, x *stack.Shared) error {
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
	return t.stack.Recount(x)
}

// linkShared is linkNode for a new node of a shared object. Its links may have changed since it was
// found. Only a node of the object changes them, so they stay once this node is known.
func (t *tree) linkShared(n *Node, f *stack.Found, copies uint64) (first *Node, made bool, err error) {
	defer n.lockLinks()()
	if first, made = t.linkNode(n, f, copies); made && f.Shared != nil && f.Layer == stack.Upper {
		err = t.stack.Recount(f.Shared)
	}
	return first, made, err
}

// linkNode registers a new node as that of its object, for other names to find. If another node was
// registered at the same time, first is that node, with one reference more. If the object may have
// been copied up since it was found in a lower, first is n and made is false: a node that was
// dropped since may have published the copy. copies is sharedCopies before the object was found.
func (t *tree) linkNode(n *Node, f *stack.Found, copies uint64) (first *Node, made bool) {
	if f.Shared != nil && f.Shared.Ino != 0 && f.Layer != stack.Upper {
		// A node that publishes a copy counts it before it can be dropped.
		return t.nodes.LinkWhile(sharedKey(f.Shared), n, func() bool { return t.sharedCopies.Load() == copies })
	}
	var keys []inodecache.Key
	if f.Shared != nil && f.Shared.Ino != 0 {
		keys = append(keys, sharedKey(f.Shared))
	}
	if f.Layer == stack.Upper && (f.Shared != nil || manyLinks(&f.Stat)) {
		keys = append(keys, keyOf(&f.Stat))
	}
	for i, key := range keys {
		if first, made := t.nodes.Link(key, n); !made {
			for _, linked := range keys[:i] {
				t.nodes.Unlink(linked, n)
			}
			return first, false
		}
	}
	return n, true
}

// lockLinks locks the counts of a shared object, so that no other name of it becomes a link
// meanwhile. For any other object, and for nil, it does nothing.
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
		n.countLocked(st)
	}
	return err
}

// countLocked replaces the link count in st, which a layer returned for n's object, by the number
// of all its names. Preconditions: lockLinks.
func (n *Node) countLocked(st *sys.Stat) {
	if p := n.place(); p.shared != nil && p.layer == stack.Upper {
		p.shared.Count(st)
	}
}

// statShared fills st with the attributes of a node whose object has names that do not lead to it
// in the layer. Preconditions: no directory's mu is held.
func (a *access) statShared(n *Node, st *sys.Stat) error {
	return a.with(n, func(r owner.Ref) error { return n.stat(r, st) })
}

// linkUp makes a name of n a link of its copy in the index. If n has lost the name, linkUp does
// nothing. Preconditions: no directory's mu is held, the name's directory is in the upper.
func (t *tree) linkUp(n *Node, at placed) error {
	d := t.openDir(at.parent)
	defer d.release()
	var f stack.Found
	if err := t.lockEntry(at.parent, d, at.name, &f); err != nil {
		if at.parent.place().unlinked {
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
	return t.stack.LinkUp(&at.parent.dir.Dir, up, at.name, p.shared)
}

// syncNlink stores the link count in the copy of a shared object, before a link is added or
// removed.
func (t *tree) syncNlink(n *Node) error {
	if n.place().shared == nil {
		return nil
	}
	defer n.lockLinks()()
	if p := n.place(); p.layer == stack.Upper && !p.unlinked {
		return t.stack.RecordLinks(p.shared)
	}
	return nil
}

// shareName prepares a name that is about to be removed, replaced or moved (ovl_nlink_start).
// Preconditions: no lock is held.
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
	if err := o.copyUpMetadata(n); err != nil {
		return err
	}
	if err := o.copyUp(at.parent, wholeFile); err != nil {
		return err
	}
	if err := o.linkUp(n, at); err != nil {
		return err
	}
	return o.syncNlink(n)
}

// linkRemovedLocked notes that a name of a shared object has been removed. Preconditions:
// lockLinks.
func (t *tree) linkRemovedLocked(n *Node) {
	if n == nil {
		return
	}
	if p := n.place(); p.shared != nil && p.layer == stack.Upper {
		t.stack.LinkRemoved(p.shared)
	}
}

// errNotLinkedUp is returned if a name has to be prepared by shareName before it is removed. It
// never leaves this package.
var errNotLinkedUp = errors.New("the name is not a link of the copy in the upper yet")
