package fs

import (
	"math"

	"github.com/fuse-overlay/fuse-overlay/internal/lock"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// A WRITE past the page cache meets pages of a shared mapping, which come in and are written back while it is served. The kernel has
// dropped the pages before it sends the WRITE, but one that comes in before the data is written has the old bytes, and its
// writeback would put them over the new ones. If the WRITE makes the file longer, i_size grows when it has been answered: a page
// with the new bytes would be zeroed beyond the old size by its writeback (docs/design/mapped-append.md). So while the WRITE is served
//
//  1. what the page cache writes back is ignored in the range of the WRITE and beyond the old size, and READs for the page cache
//     end at the old size;
//  2. the data is written;
//  3. FUSE_NOTIFY_STORE of the last byte has i_size grow, if it has to;
//  4. READs show all, and the pages that have come in since the kernel dropped them are dropped;
//  5. what is written back counts again, and the WRITE is answered.
//
// Step 4 waits for the writeback of the pages it drops, so that nothing of them comes after step 5.

// growing knows the files to which such a WRITE is being made. A FALLOCATE that clears a range (clearRange) and an open with O_TRUNC
// (cutOff) enter themselves too: what the page cache writes back meanwhile is older than their result.
type growing struct {
	mu  lock.Mutex[lock.Leaf] // guards was; a leaf
	was map[*Node]growth

	// storing is held (R) while something that the page cache has written back is stored, and (W) while a WRITE is entered into was:
	// what was judged before that is stored before it. By the number of the node, so that a slow write delays few others.
	storing [64]lock.RWMutex[lock.Stores]
}

// growth is one of them.
type growth struct {
	size     int64 // before the WRITE; more than any offset where it does not make the file longer
	from, to int64 // the range of the WRITE
	shown    bool  // READs are to show all
}

func (g *growing) lock(n *Node) *lock.RWMutex[lock.Stores] {
	return &g.storing[n.ID()%uint64(len(g.storing))]
}

func (g *growing) begin(n *Node, w growth) {
	l := g.lock(n)
	l.Lock()
	defer l.Unlock()
	g.set(n, w)
}

func (g *growing) set(n *Node, to growth) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.was == nil {
		g.was = map[*Node]growth{}
	}
	g.was[n] = to
	n.flags.Or(growsDirectly)
}

func (g *growing) end(n *Node) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.was, n)
	n.flags.And(^uint32(growsDirectly))
}

func (g *growing) of(n *Node) (w growth, found bool) {
	if n.flags.Load()&growsDirectly == 0 {
		return growth{}, false
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	w, found = g.was[n]
	return w, found
}

// readable is how many of so many bytes at off a READ for the page cache may show.
func (g *growing) readable(n *Node, off int64, size int) int {
	w, found := g.of(n)
	if !found || w.shown {
		return size
	}
	return int(min(int64(size), max(0, w.size-off)))
}

// store writes what the page cache has written back, as far as it is to be stored, and answers as if it were all.
func (g *growing) store(n *Node, h *held, data []byte, off int64) (int, error) {
	l := g.lock(n)
	l.RLock()
	defer l.RUnlock()
	return g.storeLocked(n, h, data, off)
}

// storeLocked is store. Precondition: the lock of n's stores is held, for reading at least.
func (g *growing) storeLocked(n *Node, h *held, data []byte, off int64) (int, error) {
	w, found := g.of(n)
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

// writeDirectly writes past the page cache to n.
func (o *Overlay) writeDirectly(n *Node, h *held, data []byte, off int64) (done int, err error) {
	w := growth{size: math.MaxInt64, from: off, to: off + int64(len(data))}
	var st sys.Stat
	if !o.policy.DirectIO && o.server != nil { // with passthrough, and where layers change
		if err := h.Value.file.Ref().Stat(&st); err != nil {
			return 0, err
		}
		if w.to > st.Size {
			w.size = st.Size
		}
	}
	o.growing.begin(n, w)
	defer o.growing.end(n)
	done, err = h.Value.pwrite(data, off)
	end := off + int64(done)
	if w.size < end && done > 0 {
		o.conn.While(func() { o.server.InodeNotifyStoreCache(n.ID(), end-1, data[done-1:done]) })
		w.shown = true
		o.growing.set(n, w)
		n.flags.And(^uint32(hasRead))
		from := min(off, w.size)
		o.dropPages(n, from, end-from)
		return done, err
	}
	// WRITEs of one inode come one after the other (fuse_dio_lock), so that nothing else takes the mark away.
	if done > 0 && n.flags.And(^uint32(hasRead))&hasRead != 0 {
		o.dropPages(n, off, int64(done))
	}
	return done, err
}
