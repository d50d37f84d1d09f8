package fs

import (
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/fs/stack"
	"github.com/fuse-overlay/fuse-overlay/inodecache"
	"github.com/fuse-overlay/fuse-overlay/internal/lock"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// Node is one object of the merged tree. It is 112 bytes, which is one of Go's sizes of memory
// blocks.
type Node struct {
	inodecache.Entry

	kind  uint32 // S_IFMT; immutable
	flags nodeFlags
	ino   atomic.Uint64 // st_ino; changes only when a copy-up breaks a hard link
	dir   *dirState     // of a directory; immutable

	upMu lock.Mutex[lock.CopyUp] // one copy-up of this object at a time

	mu lock.Mutex[lock.Place] // guards the rest: where the object lies
	// parent and name change with the mu of both directories held besides. If n is a directory,
	// movesMu is held too.
	parent   *Node
	name     string
	layer    int32          // of attributes and data
	unlinked bool           // the last known name was removed; rareState.object is the object
	rare     *rareState     // nil: the zero value
	key      inodecache.Key // the object's identity in the upper; zero while in a lower
}

// rareState is what few nodes have. The node's mu guards it, unless a field has another lock.
type rareState struct {
	others    []placed      // further names of the object that the kernel knows.
	data      *stack.Data   // where the data of a file is, if not in it.
	shared    *stack.Shared // the lower's file of which the object is, if its links stay one object.
	object    *sys.Object   // the object, kept open because it is unlinked or about to be.
	fixedSize *int64        // the size up to which an append-only file keeps its data, see fixSize
	linkable  bool          // the object has had no name yet and may get one (O_TMPFILE)

	// previousObject is object before a copy-up. Requests that have read the place before that may
	// still use it.
	previousObject *sys.Object

	// With Config.LayersChange:
	parts []stack.Part // the object in the layers; never changed in place
	pages version      // of the data of which the kernel may have pages

	// links guards the counts of shared together with the link count of its copy, over calls on the
	// upper.
	links lock.Mutex[lock.Links]
}

// noRareState is the zero value. No code changes it.
var noRareState rareState

// rareLocked returns the rare state to read. Preconditions: n.mu is held.
func (n *Node) rareLocked() *rareState {
	if n.rare == nil {
		return &noRareState
	}
	return n.rare
}

// setRareLocked returns the rare state to change. Preconditions: n.mu is held.
func (n *Node) setRareLocked() *rareState {
	if n.rare == nil {
		n.rare = &rareState{}
	}
	return n.rare
}

// setDataLocked notes where the data of a file is; nil: in it. Preconditions: n.mu is held.
func (n *Node) setDataLocked(data *stack.Data) {
	if data != nil || n.rare != nil {
		n.setRareLocked().data = data
	}
}

// placed is one name of an object.
type placed struct {
	parent *Node
	name   string
}

// place is where an object lies, read at one moment. Its fields are those of the node.
type place struct {
	placed
	layer    int
	unlinked bool
	data     *stack.Data
	shared   *stack.Shared
	object   *sys.Object
	part     stack.Part // the object in layer; zero: not known
}

func (n *Node) place() place {
	n.mu.Lock()
	defer n.mu.Unlock()
	rare := n.rareLocked()
	p := place{placed{n.parent, n.name}, int(n.layer), n.unlinked, rare.data, rare.shared, rare.object, stack.Part{}}
	for _, part := range rare.parts {
		if int(part.Layer) == p.layer {
			p.part = part
		}
	}
	return p
}

// inUpperDir reports whether the object lies under its name in a directory of the upper, where
// other requests may put another object in its place.
func (p *place) inUpperDir() bool {
	return p.layer == stack.Upper && !p.unlinked && p.parent != nil && p.shared == nil
}

// inUpper reports whether the object can be changed without a copy-up.
func (n *Node) inUpper() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.layer == stack.Upper
}

// addName adds a name to the object.
func (n *Node) addName(p placed) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.unlinked || n.parent == nil {
		n.parent, n.name, n.unlinked = p.parent, p.name, false
		if n.rare != nil {
			n.rare.linkable = false
		}
		return
	}
	if (placed{n.parent, n.name}) != p {
		rare := n.setRareLocked()
		rare.others = append(rare.others, p)
	}
}

// removeName removes a name from the object. After the last one the object is unlinked.
func (n *Node) removeName(p placed) {
	n.mu.Lock()
	defer n.mu.Unlock()
	others := n.rareLocked().others
	for i, other := range others {
		if other == p {
			n.rare.others = append(others[:i], others[i+1:]...)
			return
		}
	}
	if (placed{n.parent, n.name}) != p {
		return
	}
	if len(others) == 0 {
		n.unlinked = true
		return
	}
	n.parent, n.name = others[0].parent, others[0].name
	n.rare.others = others[1:]
}

// moveName replaces one name of the object by another.
func (n *Node) moveName(from, to placed) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if (placed{n.parent, n.name}) == from {
		n.parent, n.name = to.parent, to.name
		return
	}
	for i, other := range n.rareLocked().others {
		if other == from {
			n.rare.others[i] = to
		}
	}
}

// lastName reports whether the object has no other name that is known.
func (n *Node) lastName() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.rareLocked().others) == 0
}

// keepObject keeps the object open for when its last name is removed, until the node is dropped. A
// previous removal that failed may have kept another object: that of the lower, before a copy-up.
func (a *access) keepObject(n *Node, object *sys.Object) {
	n.mu.Lock()
	rare := n.setRareLocked()
	old := rare.object
	rare.object = object
	n.mu.Unlock()
	a.journal.update(n)
	if old != nil {
		old.Close()
	}
}

func keyOf(st *sys.Stat) inodecache.Key { return inodecache.Key{Dev: st.Dev, Ino: st.Ino} }

// manyLinks reports whether st is an object that other names may lead to.
func manyLinks(st *sys.Stat) bool { return st.Nlink > 1 && st.Mode&unix.S_IFMT != unix.S_IFDIR }
