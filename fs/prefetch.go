package fs

import (
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/fs/stack"
	"github.com/fuse-overlay/fuse-overlay/internal/lock"
)

// A program that goes through a tree reads file after file, in the order of the listing, and does
// something with each before it reads the next. A reader that finds no request meanwhile reads the
// next small file of a lower, so that its READ is answered from memory.

const (
	// maxPrefetch is one byte more than the size of the largest file that is prefetched.
	maxPrefetch = 128 << 10
	// maxConfidence bounds the confidence that files are read in order. It grows by one with each file
	// that is, and falls by one with each file of another directory. So a walk keeps it where
	// directories are small, and scattered reads do not.
	maxConfidence = 3
)

// prefetcher has the file that is likely to be read next.
type prefetcher struct {
	disabled bool          // immutable
	pending  atomic.Bool   // a file has been read since the last readNext
	taken    atomic.Uint64 // READs that were answered from data

	mu         lock.Mutex[lock.NextFile] // guards the rest; tried, never waited for
	last       placed                    // the last small file that was read; without a name: a directory that was listed since
	next       *Node                     // the file after it, if that is one of a lower; nil: not known
	confidence int
	filled     bool   // data has the first got bytes of next, all there are
	layer      int    // where next lay then
	data       []byte // nil until needed
	got        int
}

// take fills buf with the data of n if that has been prefetched, and notes that n has been read. A
// file of a lower does not change. One that has been copied up is read where it is.
func (f *prefetcher) take(n *Node, buf []byte) (got int, ok bool) {
	if f.disabled || !f.mu.TryLock() {
		return 0, false
	}
	defer f.mu.Unlock()
	p := n.place()
	if p.unlinked || p.parent == nil {
		return 0, false
	}
	if ok = f.next == n && f.filled && p.layer == f.layer; ok {
		got = copy(buf, f.data[:f.got])
		f.taken.Add(1)
	}
	switch {
	case f.next == n:
		f.confidence = min(f.confidence+1, maxConfidence)
	case f.last.parent != p.parent:
		f.confidence = max(f.confidence-1, 0)
	case f.next != nil:
		f.confidence = 0
	}
	f.last, f.next, f.filled = p.placed, nil, false
	f.pending.Store(true)
	return got, ok
}

// Idle prefetches the file that is likely to be read next. It reports whether it did anything.
func (o *Overlay) Idle() (done bool) { return o.prefetch.readNext(&o.access) }

// noteListing notes that the files of a directory may be read next.
func (f *prefetcher) noteListing(n *Node) {
	if !f.disabled && f.mu.TryLock() {
		f.last, f.next, f.filled = placed{parent: n}, nil, false
		f.pending.Store(true)
		f.mu.Unlock()
	}
}

// readNext finds out which file is likely to be read next, and reads it if that is likely enough.
// It reports whether it did anything. Errors are dropped: the READ of the file reports its own.
func (f *prefetcher) readNext(a *access) bool {
	if !f.pending.Load() || !f.mu.TryLock() {
		return false
	}
	defer f.mu.Unlock()
	f.pending.Store(false)
	n := a.fileAfter(f.last)
	if n == nil {
		return true
	}
	f.next = n
	p := n.place()
	if f.confidence == 0 || p.layer == stack.Upper || p.data != nil || p.shared != nil || p.unlinked {
		return true
	}
	file, there, err := a.openPlace(n, &p, unix.O_RDONLY)
	if !there || err != nil {
		return true
	}
	defer file.Close()
	if f.data == nil {
		f.data = make([]byte, maxPrefetch)
	}
	f.layer = p.layer
	f.got, err = file.Pread(f.data, 0)
	f.filled = err == nil && f.got < maxPrefetch && n.place() == p
	return true
}

// fileAfter returns the known file that follows in the listing of its directory; nil: none, or a
// request has the directory locked.
func (a *access) fileAfter(at placed) *Node {
	d := at.parent.dir
	if !d.mu.TryLock() {
		return nil
	}
	defer d.mu.Unlock()
	if !d.IsListed() {
		return nil
	}
	name, ok := d.FileAfter(at.name)
	if !ok {
		return nil
	}
	return d.children[name]
}
