package fs

import (
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/fs/stack"
	"github.com/fuse-overlay/fuse-overlay/internal/lock"
)

// A program that goes through a tree reads file after file, in the order of the listing, and does something with each before
// it asks for the next. nextFile uses that time: the reader at the door, which would look for a request in vain, reads the
// next small file of a lower, so that its READ is answered from memory.

const (
	// nextMost is the size of the largest file that is read before it is asked for, and a byte.
	nextMost = 128 << 10
	// surest is how far the certainty grows that files are read in order: by one with each that is, from none on, and back by one
	// with each file of another directory. So a walk keeps it where directories are small, and who reads here and there does not.
	surest = 3
)

// nextFile is what is expected to be read next.
type nextFile struct {
	disabled bool        // immutable
	pending  atomic.Bool // a file has been read since somebody looked for the next

	mu     lock.Mutex[lock.NextFile] // guards the rest; nobody waits for it
	last   placed                    // the last small file that was read; without a name, a directory that was listed since
	next   *Node                     // the file after it, where that is one of a lower; nil: not known
	sure   int
	filled bool   // data has the first got bytes of next, all there are
	layer  int    // where next lay then
	data   []byte // nil until needed
	got    int
}

// take fills buf with the data of n if that has been read already, and notes that n has been read. A file of a lower does
// not change; one that has been copied up is read where it is.
func (f *nextFile) take(n *Node, buf []byte) (got int, ok bool) {
	if f.disabled || !f.mu.TryLock() {
		return 0, false
	}
	defer f.mu.Unlock()
	p := n.place()
	if p.gone || p.parent == nil {
		return 0, false
	}
	if ok = f.next == n && f.filled && p.layer == f.layer; ok {
		got = copy(buf, f.data[:f.got])
	}
	switch {
	case f.next == n:
		f.sure = min(f.sure+1, surest)
	case f.last.parent != p.parent:
		f.sure = max(f.sure-1, 0)
	case f.next != nil:
		f.sure = 0
	}
	f.last, f.next, f.filled = p.placed, nil, false
	f.pending.Store(true)
	return got, ok
}

// listed notes that the files of a directory may be read next.
func (f *nextFile) listed(n *Node) {
	if !f.disabled && f.mu.TryLock() {
		f.last, f.next, f.filled = placed{parent: n}, nil, false
		f.pending.Store(true)
		f.mu.Unlock()
	}
}

// readNext finds out which file is likely to be read next, and reads it if that is likely enough. It reports whether it did
// anything. Errors are for who asks for the file.
func (o *Overlay) readNext() bool {
	f := &o.next
	if !f.pending.Load() || !f.mu.TryLock() {
		return false
	}
	defer f.mu.Unlock()
	f.pending.Store(false)
	n := o.fileAfter(f.last)
	if n == nil {
		return true
	}
	f.next = n
	p := n.place()
	if f.sure == 0 || p.layer == stack.Upper || p.data != nil || p.shared != nil || p.gone {
		return true
	}
	file, there, err := o.openPlace(n, &p, unix.O_RDONLY)
	if !there || err != nil {
		return true
	}
	defer file.Close()
	if f.data == nil {
		f.data = make([]byte, nextMost)
	}
	f.layer = p.layer
	f.got, err = file.Pread(f.data, 0)
	f.filled = err == nil && f.got < nextMost && n.place() == p
	return true
}

// Idle prefetches the file that is likely to be read next. It reports whether it did anything.
func (o *Overlay) Idle() (done bool) { return o.readNext() }

// fileAfter returns the known file that follows in the listing of its directory; nil where there is none, or somebody is changing
// the directory.
func (o *Overlay) fileAfter(at placed) *Node {
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
