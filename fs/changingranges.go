package fs

import "github.com/fuse-overlay/fuse-overlay/internal/lock"

// changingRanges are ranges of files that a request is changing past the page cache of the mount.
//
// A WRITE past the page cache meets pages of a shared mapping, which come in and are written back
// while it is served. The kernel has dropped the pages before it sends the WRITE. But a page that
// comes in before the data is written has the old bytes, and its writeback would put them over the
// new ones. If the WRITE makes the file longer, i_size grows only after the reply. The writeback of
// a page with the new bytes would write zeros beyond the old size (docs/design/mapped-append.md).
// So while the WRITE is served
//
//  1. what the page cache writes back is ignored in the range of the WRITE and beyond the old size;
//  2. the data is written;
//  3. FUSE_NOTIFY_STORE of the last byte makes i_size grow, if it has to;
//  4. the kernel drops the pages that have come in meanwhile;
//  5. what is written back counts again, and the WRITE is answered.
//
// Step 4 waits for the writeback of the pages it drops, so that nothing of them comes after step 5.
// Before Linux 6.16 it does not, because the kernel writes back copies of them (D75).
//
// READs show what the file has, even before i_size has grown. A READ that was sent after step 3 and
// ended at the old size would set i_size back to that (fuse_short_read), until the WRITE is
// answered. Pages that come in after step 4 would then be zeroed beyond it.
//
// A FALLOCATE that clears a range (clearRange) and an open with O_TRUNC (truncateForOpen) enter
// themselves too: what the page cache writes back meanwhile is older than their result.
type changingRanges struct {
	mu      lock.Mutex[lock.Leaf] // guards changes; a leaf
	changes map[*Node]rangeChange

	// storing is held (R) while data that the page cache has written back is stored, and (W) while a
	// request enters its range. So data that was checked before the range is stored before it. The
	// number of the node selects the lock, so that a slow write delays few others.
	storing [64]lock.RWMutex[lock.Stores]
}

// rangeChange is the range that one request changes.
type rangeChange struct {
	size     int64 // of the file before; more than any offset if the request does not make it longer
	from, to int64 // the range
}

func (r *changingRanges) lock(n *Node) *lock.RWMutex[lock.Stores] {
	return &r.storing[n.ID()%uint64(len(r.storing))]
}

func (r *changingRanges) begin(n *Node, w rangeChange) {
	l := r.lock(n)
	l.Lock()
	defer l.Unlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.changes == nil {
		r.changes = map[*Node]rangeChange{}
	}
	r.changes[n] = w
	n.flags.set(flagRangeChanging)
}

func (r *changingRanges) end(n *Node) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.changes, n)
	n.flags.clear(flagRangeChanging)
}

func (r *changingRanges) of(n *Node) (w rangeChange, found bool) {
	if !n.flags.has(flagRangeChanging) {
		return rangeChange{}, false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	w, found = r.changes[n]
	return w, found
}

// storeWriteback writes data that the page cache has written back, outside of the changing range.
// It returns the length of data, as if it had written all.
func (r *changingRanges) storeWriteback(n *Node, h *held, data []byte, off int64) (int, error) {
	l := r.lock(n)
	l.RLock()
	defer l.RUnlock()
	return r.storeWritebackLocked(n, h, data, off)
}

// storeWritebackLocked is storeWriteback. Preconditions: the lock of n's stores is held, for
// reading at least.
func (r *changingRanges) storeWritebackLocked(n *Node, h *held, data []byte, off int64) (int, error) {
	w, found := r.of(n)
	if !found {
		return h.Value.pwrite(data, off)
	}
	end := off + int64(len(data))
	for _, part := range [][2]int64{{off, min(end, w.from, w.size)}, {max(off, w.to), min(end, w.size)}} {
		if part[0] >= part[1] {
			continue
		}
		if _, err := h.Value.pwrite(data[part[0]-off:part[1]-off], part[0]); err != nil {
			return 0, err
		}
	}
	return len(data), nil
}
