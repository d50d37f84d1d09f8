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

// drop removes a node that nobody refers to, and then the directories that were only kept for it.
func (o *Overlay) drop(n *Node) {
	o.renameMu.RLock()
	defer o.renameMu.RUnlock()
	for unused := []*Node{n}; len(unused) > 0; {
		n, unused = unused[0], unused[1:]
		if n != o.root {
			unused = append(unused, o.dropOne(n)...)
		}
	}
}

// dropOne removes the node if it can go, and returns the directories of its names. Precondition: renameMu R.
func (o *Overlay) dropOne(n *Node) (dirs []*Node) {
	parent := n.place().parent
	parent.dir.mu.Lock()
	dropped := !o.hasChildren(n) && o.nodes.Drop(n)
	parent.dir.mu.Unlock()
	if !dropped {
		return nil
	}
	n.mu.Lock()
	rare, key := n.rareLocked(), n.key
	names, kept := append([]placed{{n.parent, n.name}}, rare.others...), rare.kept
	if rare.former != nil {
		rare.former.Close()
	}
	n.rare = nil
	n.mu.Unlock()
	for _, at := range names {
		at.parent.dir.mu.Lock()
		if at.parent.dir.children[at.name] == n {
			delete(at.parent.dir.children, at.name)
		}
		at.parent.dir.mu.Unlock()
		dirs = append(dirs, at.parent)
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
	return dirs
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
		layer := int(n.layer)
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
