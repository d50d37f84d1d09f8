package fs

import (
	"cmp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/fs/stack"
	"github.com/fuse-overlay/fuse-overlay/inodecache"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// Node is one object of the merged tree. It is 112 bytes, which is a size that memory is handed out in.
type Node struct {
	inodecache.Entry

	kind  uint32        // S_IFMT; immutable
	flags atomic.Uint32 // bits below
	ino   atomic.Uint64 // st_ino; changes only when a copy-up breaks a hard link
	dir   *dirState     // of a directory; immutable

	upMu sync.Mutex // one copy-up of this object at a time

	mu     sync.Mutex     // guards the rest: where the object lies
	parent *Node          // changes with the mu of both directories' dirState held, and with Overlay.movesMu if n is a directory
	name   string         // as parent
	layer  int32          // that attributes and data come from
	gone   bool           // the last known name was removed; kept leads to the object
	rare   *rareState     // nil: the zero value
	key    inodecache.Key // the object's identity in the upper; zero while in a lower
}

// Bits of Node.flags.
const (
	// bare: known to have no file capabilities.
	bare = 1 << iota
	// unseenWrites, unseenMappings: attributes may change without the kernel noticing, so that it must not keep them: while
	// it is open by passthrough for writing, a write may clear suid and sgid; a mapping, which may outlive the open that it
	// was made from, may change times and blocks.
	unseenWrites
	unseenMappings
	// handled: a handle of it has been cached.
	handled
	// plain: known to have no extended attribute that is shown.
	plain
	// large: of more than one READ when it was found, which a file of a lower stays.
	large
	// parted: two inodes of the kernel's lead to it, and what changes through one is not seen by the other.
	parted
	// direct: may be open for writing past the page cache. hasRead: the page cache may have some of it since the last such write.
	direct
	hasRead
	// growsDirectly: a WRITE past the page cache is making it longer.
	growsDirectly
	// immutable, appendOnly: what the object is (chattr +i, +a), if protectionKnown.
	protectionKnown
	immutable
	appendOnly
	// manyNames: one of several names of a lower's file, each of which has a node.
	manyNames
	// xattrChange is what the flags grow by with each change of the extended attributes.
	xattrChange = 1 << 16
)

// rareState is what few nodes have. It is guarded by the node's mu.
type rareState struct {
	others []placed    // further names of the object that the kernel knows
	data   *stack.Data // where the data of a file is, if not in it
	shared *stack.Shared
	kept   *sys.Object
	fixed  *int64       // the size up to which an append-only file keeps its data, see fixSize
	parts  []stack.Part // with Config.LayersChange: the object in the layers; never changed in place
	pages  version      // with Config.LayersChange: of what the kernel may have pages
	former *sys.Object  // the object of kept before a copy-up: requests that read place before it may still use it
	// linkable: the object has had no name yet and may get one (O_TMPFILE).
	linkable bool

	// links guards the counts of shared together with the link count of its copy, over calls on the upper.
	links sync.Mutex
}

// noRareState is the zero value. No code changes it.
var noRareState rareState

// rareLocked returns the rare state to read. Precondition: n.mu is held.
func (n *Node) rareLocked() *rareState {
	if n.rare == nil {
		return &noRareState
	}
	return n.rare
}

// setRareLocked returns the rare state to change. Precondition: n.mu is held.
func (n *Node) setRareLocked() *rareState {
	if n.rare == nil {
		n.rare = &rareState{}
	}
	return n.rare
}

// setDataLocked notes where the data of a file is; nil: in it. Precondition: n.mu is held.
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

// dirState is what only a directory has.
type dirState struct {
	renewed atomic.Int64  // with Config.LayersChange: when its parts were looked up last, in Unix nanoseconds
	lister  atomic.Uint32 // the thread that last got entries without their attributes; 0: none

	loadMu sync.Mutex // held over calls on layers while the directory is loaded; taken before mu

	// mu guards the rest. It is held over calls on the upper, never over one on a lower. Where the directory's layers lie (MovedTo,
	// Redirect) changes with the node's mu held besides, so either suffices to read it.
	mu sync.Mutex
	stack.Dir
	children map[string]*Node // nodes by name; a dropped one may linger until it is met
}

func newDirState(d stack.Dir) *dirState {
	return &dirState{Dir: d, children: map[string]*Node{}}
}

// place is where an object lies, read at one moment.
type place struct {
	placed
	layer int
	gone  bool
	data  *stack.Data
	// shared: one of several names of the lower's object, which stays one object.
	shared *stack.Shared
	kept   *sys.Object
	part   stack.Part // the object in layer; zero where that is not known
}

func (n *Node) place() place {
	n.mu.Lock()
	defer n.mu.Unlock()
	rare := n.rareLocked()
	p := place{placed{n.parent, n.name}, int(n.layer), n.gone, rare.data, rare.shared, rare.kept, stack.Part{}}
	for _, part := range rare.parts {
		if int(part.Layer) == p.layer {
			p.part = part
		}
	}
	return p
}

// inUpperDir reports whether the object lies under its name in a directory of the upper, where others may put another in its place.
func (p *place) inUpperDir() bool {
	return p.layer == stack.Upper && !p.gone && p.parent != nil && p.shared == nil
}

// inUpper reports whether the object can be changed without a copy-up.
func (n *Node) inUpper() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.layer == stack.Upper
}

// leaf reports whether no node hangs below n. A directory that is in use is taken to have one.
func (n *Node) leaf() bool {
	if n.dir == nil {
		return true
	}
	if !n.dir.mu.TryLock() {
		return false
	}
	defer n.dir.mu.Unlock()
	return len(n.dir.children) == 0
}

// pathIn is where a directory lies below the root of one of its layers. A lower's directories stay where they are, and each step of the
// way is read at one moment, so the path is good there whatever is renamed meanwhile. That of the upper may be out of date.
func (n *Node) pathIn(layer int) string {
	var names []string
	for d := n; ; {
		parent, name, at, moved := d.whereIn(layer)
		if parent == nil {
			break
		}
		if moved {
			names = append(names, at)
			break
		}
		names = append(names, name)
		d = parent
	}
	slices.Reverse(names)
	return strings.Join(names, "/")
}

// whereIn returns where a layer has the directory n: at a path below its root if moved, else under
// a name in its part of parent. parent is nil for the root.
func (n *Node) whereIn(layer int) (parent *Node, name, at string, moved bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	at, moved = n.dir.MovedTo(layer)
	return n.parent, n.name, at, moved
}

// pathBelow is where the layers below the upper have a directory, as a redirect says it: what they themselves redirect does
// not count (ovl_get_redirect). Each step of the way is read at one moment, as in pathIn.
func (n *Node) pathBelow() string {
	var names []string
	for d := n; ; {
		d.mu.Lock()
		parent, name := d.parent, cmp.Or(d.dir.Redirect(), d.name)
		d.mu.Unlock()
		if parent == nil {
			break
		}
		names = append(names, strings.TrimPrefix(name, "/"))
		if name[0] == '/' {
			break
		}
		d = parent
	}
	slices.Reverse(names)
	return "/" + strings.Join(names, "/")
}

// addName notes a further name of the object; one is enough to reach it again.
func (n *Node) addName(p placed) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.gone || n.parent == nil {
		n.parent, n.name, n.gone = p.parent, p.name, false
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

// removeName forgets a name of the object.
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
		n.gone = true
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

// setKept holds the object open for when its last name goes, until the node is dropped. What an earlier removal that failed
// has kept may be another object by now: that of the lower, before a copy-up.
func (n *Node) setKept(kept *sys.Object) {
	n.mu.Lock()
	rare := n.setRareLocked()
	old := rare.kept
	rare.kept = kept
	n.mu.Unlock()
	if old != nil {
		old.Close()
	}
}

func keyOf(st *sys.Stat) inodecache.Key { return inodecache.Key{Dev: st.Dev, Ino: st.Ino} }

// manyLinks reports whether st is an object that other names may lead to.
func manyLinks(st *sys.Stat) bool { return st.Nlink > 1 && st.Mode&unix.S_IFMT != unix.S_IFDIR }
