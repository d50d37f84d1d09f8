package fs

import (
	"cmp"
	"slices"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/fs/stack"
	"github.com/fuse-overlay/fuse-overlay/internal/lock"
)

// dirState is what only a directory has.
type dirState struct {
	renewed atomic.Int64  // with Config.LayersChange: when its parts were looked up last, in Unix nanoseconds
	lister  atomic.Uint32 // the thread that last got entries without their attributes; 0: none

	loadMu lock.Mutex[lock.Load] // held over calls on layers while the directory is loaded; taken before mu

	// mu guards the rest. It is held over calls on the upper, never over one on a lower. Where the directory's layers lie (MovedTo,
	// Redirect) changes with the node's mu held besides, so either suffices to read it.
	mu lock.Mutex[lock.Dir]
	stack.Dir
	children map[string]*Node // nodes by name; a dropped one may linger until it is met
}

func newDirState(d stack.Dir) *dirState {
	return &dirState{Dir: d, children: map[string]*Node{}}
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

// hasChildren reports whether nodes hang below n: they need it for their paths. Precondition: the parent's dir.mu held.
func (o *Overlay) hasChildren(n *Node) bool {
	if n.dir == nil {
		return false
	}
	n.dir.mu.Lock()
	defer n.dir.mu.Unlock()
	return len(n.dir.children) > 0
}

// checkEmpty reports ENOTEMPTY when a directory shows an entry; errAside: it has to be listed first. Precondition: n.dir.mu is held.
func (n *Node) checkEmpty() error {
	switch {
	case !n.dir.IsListed():
		return errAside
	case !n.dir.Empty():
		return unix.ENOTEMPTY
	}
	return nil
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

// lockTwo locks the one or two directories of a change. moves: a directory is to get another place.
// If one lies in the other, lockTwo locks the outer one first, as everywhere. Otherwise the order
// is free: movesMu is held, so no other goroutine holds two such directories and no directory
// moves.
func (o *Overlay) lockTwo(a, b *Node, moves bool) (unlock func()) {
	if a == b && !moves {
		a.dir.mu.Lock()
		return a.dir.mu.Unlock
	}
	o.movesMu.Lock()
	if b.isAbove(a) {
		a, b = b, a
	}
	a.dir.mu.Lock()
	if a != b {
		b.dir.mu.Lock()
	}
	return func() {
		if a != b {
			b.dir.mu.Unlock()
		}
		a.dir.mu.Unlock()
		o.movesMu.Unlock()
	}
}

// isAbove reports whether another directory lies in n, at any depth. Precondition: movesMu is held.
func (n *Node) isAbove(other *Node) bool {
	for at := other.place().parent; at != nil; at = at.place().parent {
		if at == n {
			return true
		}
	}
	return false
}
