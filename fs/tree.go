package fs

import (
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/fs/stack"
	"github.com/fuse-overlay/fuse-overlay/inodecache"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// tree is the node tree: it makes nodes for what lookups find, joins the names of one object in one
// node, and drops nodes that the kernel has forgotten.
type tree struct {
	access
	numbers inodeNumbers
	pruner  pruner
	closer  closer
	// sharedCopies is how many copies of shared objects have been published.
	sharedCopies atomic.Uint64
}

// newNode makes the node of what has been found under a name, with one reference. For a directory
// the caller calls initDirInode or discard before any other goroutine has a reference. q is the
// lookup that found it.
func (t *tree) newNode(p *Node, name string, f *stack.Found, q *stack.Query) *Node {
	n := &Node{kind: f.Stat.Mode & unix.S_IFMT, parent: p, name: name, layer: int32(f.Layer)}
	if f.Layer == stack.Upper {
		n.key = keyOf(&f.Stat)
	}
	if f.Stat.Size >= bulk {
		n.flags.set(flagLarge)
	}
	n.setDataLocked(f.Data) // no other goroutine has a reference to n
	if t.layersChange {
		n.setRareLocked().parts = partsOf(f)
	}
	if f.Shared != nil {
		n.setRareLocked().shared = f.Shared
	}
	n.ino.Store(t.numbers.Of(keyOf(&f.Stat)))
	if f.IsDir() {
		n.dir = newDirState(stack.NewDir(f.Dirs, q))
	} else if manyLinks(&f.Stat) {
		n.flags.set(flagManyNames)
	}
	t.nodes.Insert(n)
	t.journal.add(n)
	t.pruner.wake()
	return n
}

// discard drops a new directory. Preconditions: no other goroutine has a reference to it.
func (t *tree) discard(n *Node) {
	t.unref(n)
	if t.dropEntry(n) {
		t.numbers.revoke(n)
		t.uncountNames(n)
	}
	t.evict(n)
}

// unref gives back a reference that the kernel did not get. The node stays until a FORGET or the
// next lookup drops it. A directory's mu may be held.
func (t *tree) unref(n *Node) { t.nodes.Unref(n.ID(), 1) }

// forgetOne takes back a reference that the kernel did not get. Preconditions: no directory's mu is
// held.
func (t *tree) forgetOne(n *Node) {
	if _, last := t.nodes.Unref(n.ID(), 1); last {
		t.drop(n)
	}
}

// drop removes a node without references, and then the directories that only this node needed.
// Preconditions: no directory's mu is held.
func (t *tree) drop(n *Node) {
	for n != t.root {
		parent, others, dropped := t.dropOne(n)
		if !dropped {
			return
		}
		for _, at := range others {
			t.drop(at.parent)
		}
		n = parent
	}
}

// dropOne removes the node if it can, and returns the directories of its names. Preconditions: that
// of drop.
func (t *tree) dropOne(n *Node) (parent *Node, others []placed, dropped bool) {
	at := t.lockPlace(n)
	if dropped = !t.hasChildrenLocked(n) && t.dropEntry(n); dropped {
		at.forgetLocked(n)
	}
	at.parent.dir.mu.Unlock()
	if !dropped {
		return nil, nil, false
	}
	n.mu.Lock()
	rare, key, upper := n.rareLocked(), n.key, n.layer == int32(stack.Upper)
	n.rare = nil
	n.mu.Unlock()
	t.numbers.release(n)
	t.uncountNames(n)
	for _, other := range rare.others {
		other.parent.dir.mu.Lock()
		other.forgetLocked(n)
		other.parent.dir.mu.Unlock()
	}
	if key != (inodecache.Key{}) {
		t.nodes.Unlink(key, n)
	}
	if rare.shared != nil {
		t.nodes.Unlink(sharedKey(rare.shared), n)
	}
	t.evict(n)
	if rare.previousObject != nil {
		rare.previousObject.Close()
	}
	if object := rare.object; object != nil {
		var st sys.Stat
		if n.dir == nil && object.Ref().Stat(&st) == nil && st.Nlink == 0 {
			t.numbers.Forget(key)
		}
		if upper {
			t.closer.close(object)
		} else { // its close frees nothing, and the layer may hang
			object.Close()
		}
	}
	return at.parent, rare.others, true
}

// lockPlace locks the directory that n lies in, or lay in last.
func (t *tree) lockPlace(n *Node) placed {
	for {
		at := n.place().placed
		at.parent.dir.mu.Lock()
		if n.place().placed == at {
			return at
		}
		at.parent.dir.mu.Unlock()
	}
}

// forgetLocked takes n from the nodes of its directory. Preconditions: that directory's mu is held.
func (at placed) forgetLocked(n *Node) {
	if at.parent.dir.children[at.name] == n {
		delete(at.parent.dir.children, at.name)
	}
}

// detachLocked takes a removed name from its node, if it has one. Preconditions: the mu of p's
// directory is held.
func (t *tree) detachLocked(n *Node, p placed) {
	if n == nil {
		return
	}
	delete(p.parent.dir.children, p.name)
	t.removeName(n, p)
	t.closer.noteRemoval()
}
