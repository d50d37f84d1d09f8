package fs

import (
	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/lock"
)

// openCounts counts the opens of each inode, where OPEN is answered. The kernel requires that all
// opens of an inode are of one kind, through the mount's page cache or through one backing file,
// and fails any other open with EIO (fs/fuse/iomode.c). An open is counted before the reply to
// OPEN, and until RELEASE. So the kernel never has more opens than are counted.
type openCounts struct {
	maxLowers int // files of lowers that may be open at a time, each of which keeps a descriptor; immutable

	mu     lock.Mutex[lock.Opens] // guards the rest
	byID   map[uint64]openCount
	lowers int // of them by the file of a lower
}

// openCount is what is open of one inode of the kernel's.
type openCount struct {
	count int
	backing
}

// backing is the file that the kernel reads and writes in place of one of the mount.
type backing struct {
	id int32 // throughCache: none
	// lower is the backing file, if it lies in a lower and could be copied up. Then it is open for
	// reading only. The processes that have it open go on reading it, whatever is written to the copy.
	lower *held
}

const throughCache = 0

// add counts one open more of n under the inode id. It returns the backing of all opens of id: that
// of the previous opens, else offered. A first open is not counted without an offer, nor with the
// file of a lower if that has been copied up meanwhile. ESTALE: n has another ID now. The kernel
// has to open that one, because it would keep the old data of id.
func (t *openCounts) add(n *Node, id uint64, offered *backing) (b backing, counted bool, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	e, found := t.byID[id]
	switch {
	case n.ID() != id:
		return backing{}, false, unix.ESTALE
	case found:
	case offered == nil, offered.lower != nil && n.inUpper():
		return backing{}, false, nil
	default:
		e.backing = *offered
		if e.lower != nil {
			t.lowers++
		}
	}
	e.count++
	t.byID[id] = e
	return e.backing, true, nil
}

// remove counts one open less. After the last one, for which it calls last, the caller closes the
// backing.
func (t *openCounts) remove(id uint64, last func()) (closed backing) {
	t.mu.Lock()
	defer t.mu.Unlock()
	e, found := t.byID[id]
	switch {
	case !found:
		return backing{}
	case e.count > 1:
		e.count--
		t.byID[id] = e
		return backing{}
	}
	delete(t.byID, id)
	if e.lower != nil {
		t.lowers--
	}
	last()
	return e.backing
}

// split gives n another ID, by renew, if the file of a lower is open in its place, and reports
// whether it did. previous is the ID that n had. Preconditions: n is in the upper.
func (t *openCounts) split(n *Node, renew func(*Node)) (previous uint64, done bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	previous = n.ID()
	if t.byID[previous].lower == nil {
		return previous, false
	}
	n.flags.set(flagSplit)
	renew(n)
	return previous, true
}

// readsLower reports whether the file of a lower is open in place of the inode id.
func (t *openCounts) readsLower(id uint64) bool { return t.lower(id, func(*held) {}) != nil }

// lower returns the file of a lower that is open in place of the inode id, for use by share; nil:
// none is.
func (t *openCounts) lower(id uint64, share func(*held)) *held {
	t.mu.Lock()
	defer t.mu.Unlock()
	h := t.byID[id].lower
	if h != nil {
		share(h)
	}
	return h
}

// full reports whether as many files of lowers are open as may be.
func (t *openCounts) full() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.lowers >= t.maxLowers
}
