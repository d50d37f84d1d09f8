package fs

import (
	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/lock"
)

// opens knows what is open of each file, where OPEN is answered. The kernel wants all opens of an inode to be of one kind,
// through the mount's page cache or through one backing file, and makes EIO of anything else (fs/fuse/iomode.c). A file is
// counted before the kernel hears that it is open, and until the kernel says that it is closed; so what the kernel takes
// for open is never more than what is counted.
type opens struct {
	most int // files of lowers that may be open at a time, each of which keeps a descriptor; immutable

	mu     lock.Mutex[lock.Opens] // guards the rest
	byID   map[uint64]opened
	lowers int // of them by the file of a lower
}

// opened is what is open of one inode of the kernel's.
type opened struct {
	count int
	backing
}

// backing is the file that the kernel reads and writes in place of one of the mount.
type backing struct {
	id int32 // throughCache: none
	// lower is that file, where it lies in a lower and could be copied up: then it is open for reading alone, and who has it
	// open goes on reading it whatever is written to the copy.
	lower *held
}

const throughCache = 0

// add counts one open more of n under the inode id and returns the backing of all opens of that: of those before, or offered for
// the first. Without an offer a first open is not counted, nor is it one by the file of a lower that has been copied up meanwhile.
// ESTALE: n has another id now, by which the kernel has to open it; what it remembers of the data by this one would not change.
func (t *opens) add(n *Node, id uint64, offered *backing) (b backing, counted bool, err error) {
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

// remove counts one open less. After the last, which calls last, the backing is to be closed.
func (t *opens) remove(id uint64, last func()) (closed backing) {
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

// part gives n, which is in the upper, another id, by renew, if the file of a lower is open in its place, and reports whether it
// did. former is the id it had.
func (t *opens) part(n *Node, renew func(*Node)) (former uint64, done bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	former = n.ID()
	if t.byID[former].lower == nil {
		return former, false
	}
	n.flags.Or(parted)
	renew(n)
	return former, true
}

// readsLower reports whether the file of a lower is open in place of the inode id.
func (t *opens) readsLower(id uint64) bool { return t.lower(id, func(*held) {}) != nil }

// lower returns the file of a lower that is open in place of the inode id, for use by share; nil where none is.
func (t *opens) lower(id uint64, share func(*held)) *held {
	t.mu.Lock()
	defer t.mu.Unlock()
	h := t.byID[id].lower
	if h != nil {
		share(h)
	}
	return h
}

// full reports whether as many files of lowers are open as may be.
func (t *opens) full() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.lowers >= t.most
}
