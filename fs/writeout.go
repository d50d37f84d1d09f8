package fs

import "github.com/fuse-overlay/fuse-overlay/fs/stack"

// Data that comes in large pieces is sent to the disk while more of it comes, in place of all at once when fsync asks for it or
// when a tenth of the memory is dirty: each request is a copy that the disk need not wait for. Small files, which may be gone
// again soon, are left to the kernel.

const (
	// writeOutStep is after how many bytes of a file the disk is given work, and how much at a time: a daemon that ends has to wait
	// for the call under way, and keeps its lock on the upper until then.
	writeOutStep = 8 << 20
	// writeOutMost is how far the disk may be behind. What is older is left to the kernel.
	writeOutMost = 8 * writeOutStep
)

// writeOut is told of every write to n's object of the upper. Nobody waits for the disk, nor for an error of it, which the
// next fsync of the file tells (errseq_t of the kernel: it stays until it has been told).
func (o *Overlay) writeOut(n *Node, off, size int64) {
	end := (off + size) &^ (writeOutStep - 1)
	if size < bulk || end <= off || !o.syncs() || o.writingOut.Swap(true) {
		return
	}
	h := o.handles.Acquire(n.handleKey(stack.Upper, useWrite))
	if h == nil {
		o.writingOut.Store(false)
		return
	}
	go func() {
		for at := max(0, end-writeOutMost); at < end; at += writeOutStep {
			_ = h.Value.file.StartWriteBack(at, writeOutStep) // what is clean or on its way costs nothing
		}
		o.handles.Release(h)
		o.writingOut.Store(false)
	}()
}
