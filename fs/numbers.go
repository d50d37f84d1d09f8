package fs

import (
	"hash/fnv"
	"math"

	"github.com/fuse-overlay/fuse-overlay/fs/stack"
	"github.com/fuse-overlay/fuse-overlay/inodecache"
)

// Two directories may lead to one directory of a lower: by redirects, or because layers lie inside
// each other. Then two objects would have one number, and programs that compare objects by it (cp,
// diff, tar) would take one for the other. The kernel's overlayfs returns ESTALE to a process that
// looks up the second (ovl_get_inode). Here the second gets a number of its own. While
// neither is possible, no number is kept.

// tellApart sees to it from now on that no two objects have one number. Precondition: no two have.
func (o *Overlay) tellApart() {
	if o.apart.Swap(true) {
		return
	}
	// A node that is made from now on claims its number itself.
	for _, n := range o.nodes.Sample(math.MaxInt, func(*Node) bool { return true }) {
		o.claimNumber(n)
		if _, known := o.nodes.Get(n.ID()); !known { // it was dropped before it had a claim to be released
			o.releaseNumber(n, true)
		}
	}
}

// claimNumber gives a new node another number than the one in n.ino, if another node has that one.
// Linked files of a lower are one object, and their nodes have one number. Precondition: no other
// goroutine has a reference to n, or no other node has its number.
func (o *Overlay) claimNumber(n *Node) {
	if !o.apart.Load() || n.flags.Load()&manyNames != 0 {
		return
	}
	if ino, self := n.ino.Load(), n.identity(); !o.claims.Claim(ino, n, self) {
		n.ino.Store(o.numbers.Another(self, ino))
	}
}

// doubtful reports whether what a directory shows of lowers may show in another as well.
func (o *Overlay) doubtful(n *Node) bool {
	if !o.apart.Load() || o.stack.Overlap() {
		return o.stack.Overlap()
	}
	for n != nil {
		n.mu.Lock()
		moved, parent := n.dir.Moved(), n.parent
		n.mu.Unlock()
		if moved {
			return true
		}
		n = parent
	}
	return false
}

// releaseNumber lets other objects have the number of n, which has been dropped.
func (o *Overlay) releaseNumber(n *Node, removed bool) {
	switch {
	case !o.apart.Load():
	case removed:
		o.claims.Remove(n.ino.Load(), n)
	default:
		o.claims.Release(n.ino.Load(), n, n.identity())
	}
}

// identity is the key by which an object is known again after its node has been dropped: that in the upper, and of an object of
// lowers its name.
func (n *Node) identity() inodecache.Key {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.key != (inodecache.Key{}) || n.parent == nil {
		return n.key
	}
	h := fnv.New64a()
	_, _ = h.Write([]byte(n.name)) // never fails
	return inodecache.Key{Dev: n.parent.ino.Load(), Ino: h.Sum64()}
}

// wantsOrigin reports whether an object of the upper that was found may be a copy that had its inode number before its copy-up, in
// another mount perhaps. Preconditions: p.dir.mu held, p loaded.
func (o *Overlay) wantsOrigin(p *Node, f *stack.Found) bool {
	if f.IsDir() || !p.dir.Impure() {
		return false
	}
	return !o.numbers.HasOrigin(keyOf(&f.Stat)) || o.stack.KeepsLinks() && manyLinks(&f.Stat)
}

// recall gives an object of the upper that was met the inode number of what it is a copy of, where that was found.
func (o *Overlay) recall(m *meeting) {
	switch f := &m.found; {
	case f.Layer != stack.Upper || f.IsDir():
	case m.hasOrigin:
		o.numbers.Recall(keyOf(&f.Stat), m.origin)
	case f.Shared != nil && !m.hasHandle: // found by a name of the lower
		o.numbers.Recall(keyOf(&f.Stat), sharedKey(f.Shared))
	}
}

// hasOrigin reports whether n has the inode number of an object of a lower.
func (o *Overlay) hasOrigin(n *Node) bool {
	n.mu.Lock()
	key := n.key
	n.mu.Unlock()
	return o.numbers.HasOrigin(key)
}
