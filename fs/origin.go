package fs

import (
	"github.com/fuse-overlay/fuse-overlay/fs/stack"
)

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

// origins notes which ends of a rename have an origin. A directory has one if it has a lower part.
// Precondition: the ends are locked.
func (r *rename) origins(from, to *stack.End, src, dst *Node) {
	from.HasOrigin = r.o.hasOrigin(src)
	if r.exchange() {
		to.HasOrigin = r.o.hasOrigin(dst)
	}
}
