package fs

import (
	"github.com/fuse-overlay/fuse-overlay/fs/conn/wire"
	"github.com/fuse-overlay/fuse-overlay/inodecache"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// Forget answers FORGET: the kernel gives references back.
func (o *Overlay) Forget(id, count uint64) {
	o.ForgetAll([]wire.Forget{{NodeID: id, Lookups: count}})
}

// ForgetAll gives back what FORGET or BATCH_FORGET lists.
func (o *Overlay) ForgetAll(list []wire.Forget) {
	for _, f := range list {
		if n, last := o.nodes.Unref(f.NodeID, f.Lookups); last {
			o.drop(n)
		}
	}
}

// drop removes a node without references, and then the directories that were kept for it alone.
// Precondition: no directory's mu is held.
func (o *Overlay) drop(n *Node) {
	for n != o.root {
		parent, others, dropped := o.dropOne(n)
		if !dropped {
			return
		}
		for _, at := range others {
			o.drop(at.parent)
		}
		n = parent
	}
}

// dropOne removes the node if it can go, and returns the directories of its names. Precondition: that of drop.
func (o *Overlay) dropOne(n *Node) (parent *Node, others []placed, dropped bool) {
	at := o.lockPlace(n)
	if dropped = !o.hasChildren(n) && o.nodes.Drop(n); dropped {
		at.forget(n)
	}
	at.parent.dir.mu.Unlock()
	if !dropped {
		return nil, nil, false
	}
	n.mu.Lock()
	rare, key, gone := n.rareLocked(), n.key, n.gone
	n.rare = nil
	n.mu.Unlock()
	o.releaseNumber(n, gone)
	for _, other := range rare.others {
		other.parent.dir.mu.Lock()
		other.forget(n)
		other.parent.dir.mu.Unlock()
	}
	if key != (inodecache.Key{}) {
		o.nodes.Unlink(key, n)
	}
	if rare.shared != nil {
		o.nodes.Unlink(sharedKey(rare.shared), n)
	}
	o.evict(n)
	if rare.former != nil {
		rare.former.Close()
	}
	if kept := rare.kept; kept != nil {
		var st sys.Stat
		if n.dir == nil && kept.Ref().Stat(&st) == nil && st.Nlink == 0 {
			o.numbers.Gone(key)
		}
		kept.Close()
	}
	return at.parent, rare.others, true
}

// lockPlace locks the directory that n lies in, or lay in last.
func (o *Overlay) lockPlace(n *Node) placed {
	for {
		at := n.place().placed
		at.parent.dir.mu.Lock()
		if n.place().placed == at {
			return at
		}
		at.parent.dir.mu.Unlock()
	}
}

// forget takes n from the nodes of its directory. Precondition: that directory's mu is held.
func (at placed) forget(n *Node) {
	if at.parent.dir.children[at.name] == n {
		delete(at.parent.dir.children, at.name)
	}
}
