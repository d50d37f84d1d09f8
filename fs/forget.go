package fs

import (
	"github.com/fuse-overlay/fuse-overlay/fs/stack"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// Forget answers FORGET: the kernel gives references back.
func (o *Overlay) Forget(id, count uint64) {
	o.counts.add(opForget)
	n, last := o.nodes.Unref(id, count)
	if last {
		o.drop(n)
	}
}

// drop removes a node that nobody refers to, and then its parents that were only kept for it.
func (o *Overlay) drop(n *Node) {
	o.renameMu.RLock()
	defer o.renameMu.RUnlock()
	for n != nil && n != o.root {
		p := n.place()
		if !o.dropOne(n, p) {
			return
		}
		n = p.parent
	}
}

// dropOne reports whether the node was removed. Precondition: renameMu R.
func (o *Overlay) dropOne(n *Node, p place) bool {
	p.parent.dir.mu.Lock()
	dropped := !o.hasChildren(n) && o.nodes.Drop(n)
	if dropped && p.parent.dir.children[p.name] == n {
		delete(p.parent.dir.children, p.name)
	}
	p.parent.dir.mu.Unlock()
	if !dropped {
		return false
	}
	n.mu.Lock()
	others, kept, key := n.others, n.kept, n.key
	n.kept = nil
	n.mu.Unlock()
	for _, other := range others {
		other.parent.dir.mu.Lock()
		if other.parent.dir.children[other.name] == n {
			delete(other.parent.dir.children, other.name)
		}
		other.parent.dir.mu.Unlock()
	}
	o.nodes.Unlink(key, n)
	o.evict(n)
	if kept != nil {
		var st sys.Stat
		if n.dir == nil && kept.Ref().Stat(&st) == nil && st.Nlink == 0 {
			o.numbers.Gone(key)
		}
		kept.Close()
	}
	return true
}

// hasChildren reports whether nodes hang below n: they need it for their paths. Precondition: the parent's dir.mu held.
func (o *Overlay) hasChildren(n *Node) bool {
	if n.dir == nil {
		return false
	}
	n.dir.mu.Lock()
	defer n.dir.mu.Unlock()
	return len(n.dir.children) > 0
}

// evict closes the cached handles of n.
func (o *Overlay) evict(n *Node) {
	if n.dir == nil {
		n.mu.Lock()
		layer := n.layer
		n.mu.Unlock()
		o.handles.Evict(handleKey{n.ID(), layer, useRead})
		o.handles.Evict(handleKey{n.ID(), stack.Upper, useWrite})
		return
	}
	n.dir.mu.Lock()
	layers := n.dir.Layers()
	n.dir.mu.Unlock()
	for _, l := range layers {
		o.handles.Evict(handleKey{n.ID(), int(l), useDir})
	}
}
