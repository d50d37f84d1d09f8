package fs

import (
	"sync"

	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// A WRITE past the page cache that makes a file longer meets pages of a shared mapping, which come in and are written back while it
// is served, and i_size grows when it has been answered: a page with the new bytes would be zeroed beyond the old size by its
// writeback, and a page without them would go over the new bytes (docs/design/mapped-append.md). So while the WRITE is served
//
//  1. READs for the page cache end at the old size, and what the page cache writes back beyond it is ignored;
//  2. the data is written;
//  3. FUSE_NOTIFY_STORE of the last byte has i_size grow;
//  4. READs show all, and the pages that have come in since the kernel dropped them are dropped;
//  5. what is written back counts again, and the WRITE is answered.
//
// Step 4 waits for the writeback of the pages it drops, so that nothing of them comes after step 5.

// growing knows the files that such a WRITE is making longer.
type growing struct {
	mu  sync.Mutex // guards all; a leaf
	was map[*Node]growth
}

// growth is one of them.
type growth struct {
	size  int64 // before the WRITE
	shown bool  // READs are to show all
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

// readable is how many of so many bytes at off a READ for the page cache may show.
func (g *growing) readable(n *Node, off int64, size int) int {
	return g.within(n, off, size, func(w growth) bool { return !w.shown })
}

// storable is how many of so many bytes at off, which the page cache has written back, are to be stored.
func (g *growing) storable(n *Node, off int64, size int) int {
	return g.within(n, off, size, func(growth) bool { return true })
}

func (g *growing) within(n *Node, off int64, size int, counts func(growth) bool) int {
	if n.flags.Load()&growsDirectly == 0 {
		return size
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	w, found := g.was[n]
	if !found || !counts(w) {
		return size
	}
	return int(min(int64(size), max(0, w.size-off)))
}

// growDirectly writes past the page cache to n, which may become longer by it.
func (o *Overlay) growDirectly(n *Node, h *held, data []byte, off int64) (done int, err error) {
	var st sys.Stat
	if err := h.Value.file.Ref().Stat(&st); err != nil {
		return 0, err
	}
	if off+int64(len(data)) <= st.Size || o.server == nil {
		return h.Value.pwrite(data, off)
	}
	o.growing.set(n, growth{size: st.Size})
	defer o.growing.end(n)
	done, err = h.Value.pwrite(data, off)
	if end := off + int64(done); done > 0 && end > st.Size {
		o.while(func() { o.server.InodeNotifyStoreCache(n.ID(), end-1, data[done-1:done]) })
		o.growing.set(n, growth{size: st.Size, shown: true})
		from := min(off, st.Size)
		o.dropPages(n, from, end-from)
	}
	return done, err
}
