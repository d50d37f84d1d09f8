package fs

import (
	"hash/fnv"
	"math"
	"sync/atomic"

	"github.com/fuse-overlay/fuse-overlay/fs/stack"
	"github.com/fuse-overlay/fuse-overlay/inodecache"
)

// inodeNumbers gives every node its st_ino, and every copy the number that its object had before
// the copy-up.
//
// Two directories may lead to one directory of a lower: by redirects, or because layers lie inside
// each other. Then two objects would have one number, and programs that compare objects by it (cp,
// diff, tar) would take one for the other. The kernel's overlayfs returns ESTALE to a process that
// looks up the second (ovl_get_inode). Here the second gets a number of its own: every node claims
// its number. While neither case is possible, no claim is kept.
type inodeNumbers struct {
	*inodecache.Numbers
	a      *access
	claims *inodecache.Claims[*Node]
	unique atomic.Bool // claims are kept
}

// newInodeNumbers makes numbers of width bits at most.
func newInodeNumbers(a *access, width uint) inodeNumbers {
	return inodeNumbers{
		Numbers: inodecache.NewNumbers(a.stack.Devices(), width, a.stack.NumberBits()),
		a:       a,
		claims:  inodecache.NewClaims[*Node](),
	}
}

// requireUnique keeps claims from now on. Preconditions: no two objects have one number.
func (u *inodeNumbers) requireUnique() {
	if u.unique.Swap(true) {
		return
	}
	// A node that is made from now on claims its number itself.
	for _, n := range u.a.nodes.Sample(math.MaxInt, func(*Node) bool { return true }) {
		u.claim(n)
		if _, known := u.a.nodes.Get(n.ID()); !known { // it was dropped before it had a claim to be released
			u.revoke(n)
		}
	}
}

// claim gives a new node another number than the one in n.ino, if another node has that one. Linked
// files of a lower are one object, and their nodes have one number. Preconditions: no other
// goroutine has a reference to n, or no other node has its number.
func (u *inodeNumbers) claim(n *Node) {
	if !u.unique.Load() || n.flags.has(flagManyNames) {
		return
	}
	if ino, self := n.ino.Load(), n.identity(); !u.claims.Claim(ino, n, self) {
		n.ino.Store(u.Alias(self, ino))
		u.a.journal.update(n)
	}
}

// release ends the claim of n, which has been dropped. Unless n was removed, the number stays that
// of its object.
func (u *inodeNumbers) release(n *Node) {
	switch {
	case !u.unique.Load():
	case n.place().unlinked:
		u.claims.Remove(n.ino.Load(), n)
	default:
		u.claims.Release(n.ino.Load(), n, n.identity())
	}
}

// revoke ends the claim of n as if n had never been.
func (u *inodeNumbers) revoke(n *Node) {
	if u.unique.Load() {
		u.claims.Remove(n.ino.Load(), n)
	}
}

// mayDifferLocked reports whether the object of a lower under a name of the directory p may get
// another number than ino, its own. doubtful is inodeNumbers.doubtful of p. Preconditions: p.dir.mu
// is held.
func (u *inodeNumbers) mayDifferLocked(p *Node, name string, ino uint64, doubtful bool) bool {
	return doubtful || u.unique.Load() && !u.claims.Free(ino, p.dir.children[name])
}

// doubtful reports whether another directory may show the same objects of lowers as n.
func (u *inodeNumbers) doubtful(n *Node) bool {
	if !u.unique.Load() || u.a.stack.Overlap() {
		return u.a.stack.Overlap()
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

// identity is the key by which an object is known again after its node has been dropped. An object
// of the upper has the key of its inode, one of lowers a key made of its name.
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

// wantsOriginLocked reports whether f, an object found in the upper's part of p, may be a copy that
// had its inode number before its copy-up. That copy-up may have been in an earlier mount.
// Preconditions: p.dir.mu is held, p is loaded.
func (u *inodeNumbers) wantsOriginLocked(p *Node, f *stack.Found) bool {
	if f.IsDir() || !p.dir.Impure() {
		return false
	}
	return !u.HasOrigin(keyOf(&f.Stat)) || u.a.stack.KeepsLinks() && manyLinks(&f.Stat)
}

// restore gives an object of the upper that was looked up the inode number of its origin, where
// that was found.
func (u *inodeNumbers) restore(l *lookup) {
	switch f := &l.found; {
	case f.Layer != stack.Upper || f.IsDir():
	case l.hasOrigin:
		u.Recall(keyOf(&f.Stat), l.origin)
	case f.Shared != nil && !l.hasHandle: // found by a name of the lower
		u.Recall(keyOf(&f.Stat), sharedKey(f.Shared))
	}
}

// nodeHasOrigin reports whether n has the inode number of an object of a lower.
func (u *inodeNumbers) nodeHasOrigin(n *Node) bool {
	n.mu.Lock()
	key := n.key
	n.mu.Unlock()
	return u.HasOrigin(key)
}
