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
	renewed atomic.Int64  // with Config.LayersChange: when its parts were looked up, in Unix nanoseconds
	lister  atomic.Uint32 // the thread that last got entries without their attributes; 0: none

	loadMu lock.Mutex[lock.Load] // held over calls on layers while the directory is loaded; taken before mu

	// mu guards the rest. It is held over calls on the upper, never over one on a lower. Where the
	// directory's layers lie (MovedTo, Redirect) changes with the node's mu held besides, so either
	// suffices to read it.
	mu lock.Mutex[lock.Dir]
	stack.Dir
	counted       int              // the part of access.listed that is this directory's
	copyFillsPage bool             // the kernel's copy of the listing is complete, or about to be, and ends with a page
	children      map[string]*Node // nodes by name; a dropped one stays until the next lookup
}

func newDirState(d stack.Dir) *dirState {
	return &dirState{Dir: d, children: map[string]*Node{}}
}

// countNames updates access.listed after a load of n. Preconditions: n.dir.mu is held, or no other
// goroutine has a reference to n.
func (a *access) countNames(n *Node) {
	now := n.dir.Names()
	a.listed.Add(int64(now - n.dir.counted))
	n.dir.counted = now
}

// uncountNames updates access.listed when n is dropped.
func (a *access) uncountNames(n *Node) {
	if n.dir != nil {
		n.dir.mu.Lock()
		a.listed.Add(-int64(n.dir.counted))
		n.dir.counted = 0
		n.dir.mu.Unlock()
	}
}

// leaf reports whether no node hangs below n. If another request uses the directory, leaf returns
// false.
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

// hasChildrenLocked reports whether nodes hang below n, which need it for their paths.
// Preconditions: the parent's dir.mu is held.
func (a *access) hasChildrenLocked(n *Node) bool {
	if n.dir == nil {
		return false
	}
	n.dir.mu.Lock()
	defer n.dir.mu.Unlock()
	return len(n.dir.children) > 0
}

// checkEmptyLocked returns ENOTEMPTY if a directory shows an entry; errNeedsLayers: it has to be
// listed first. Preconditions: n.dir.mu is held.
func (n *Node) checkEmptyLocked() error {
	switch {
	case !n.dir.IsListed():
		return errNeedsLayers
	case !n.dir.Empty():
		return unix.ENOTEMPTY
	}
	return nil
}

// pathIn returns the path of a directory below the root of one of its layers. A lower's directories
// stay where they are, and each step of the path is read at one moment. So the path is right in a
// lower, whatever is renamed meanwhile. In the upper it may be out of date.
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

// pathBelow returns the path of a directory in the layers below the upper, as a redirect contains
// it: without the redirects of those layers themselves (ovl_get_redirect). Each step of the path is
// read at one moment, as in pathIn.
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

// lockDirs locks the one or two directories whose entries change, if none of the entries is a
// directory. Otherwise lockForMove does.
func (a *access) lockDirs(first, second *Node) (unlock func()) {
	if first == second {
		first.dir.mu.Lock()
		return first.dir.mu.Unlock
	}
	return a.lockForMove(first, second)
}

// lockForMove locks the one or two directories between which a directory moves. If one lies in the
// other, lockForMove locks the outer one first, as everywhere. Otherwise the order is free: movesMu
// is held, so no other goroutine holds two such directories and no directory moves.
func (a *access) lockForMove(first, second *Node) (unlock func()) {
	a.movesMu.Lock()
	if second.isAbove(first) {
		first, second = second, first
	}
	first.dir.mu.Lock()
	if first != second {
		second.dir.mu.Lock()
	}
	return func() {
		if first != second {
			second.dir.mu.Unlock()
		}
		first.dir.mu.Unlock()
		a.movesMu.Unlock()
	}
}

// isAbove reports whether another directory lies in n, at any depth. Preconditions: movesMu is
// held.
func (n *Node) isAbove(other *Node) bool {
	for at := other.place().parent; at != nil; at = at.place().parent {
		if at == n {
			return true
		}
	}
	return false
}
