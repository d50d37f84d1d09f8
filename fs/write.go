package fs

import (
	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/fuse-overlay/fuse-overlay/fs/stack"
)

// Write answers WRITE; the first one to a lower file copies it up.
func (o *Overlay) Write(_ <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	n, err := o.node(in.NodeId)
	if err != nil {
		return 0, o.status("write", err)
	}
	skip, err := o.mayWrite(n, in, data)
	if err != nil {
		return 0, o.status("write", err)
	}
	h, err := o.writable(n)
	if err != nil {
		return 0, o.status("write", err)
	}
	defer o.handles.Release(h)
	if in.WriteFlags&fuse.WRITE_KILL_SUIDGID != 0 { // first, as file_remove_privs: no new data behind an old suid
		if err := o.killSuid(n, &in.InHeader); err != nil {
			return 0, o.status("write", err)
		}
	}
	done, err := o.writeData(n, h, in, data[skip:], int64(in.Offset)+int64(skip))
	if done += skip; err != nil && done == 0 {
		return 0, o.status("write", err)
	}
	if isDirect(in) {
		if err := o.wroteDirectly(h, in); err != nil {
			return 0, o.status("write", err)
		}
	}
	o.writeOut(n, int64(in.Offset), int64(done))
	return uint32(done), fuse.OK // a short count; the kernel asks again for the rest and is told the error then
}

// writeData puts data of a WRITE into the file at off.
func (o *Overlay) writeData(n *Node, h *held, in *fuse.WriteIn, data []byte, off int64) (int, error) {
	switch {
	case isDirect(in):
		return o.writeDirectly(n, h, data, off)
	case in.WriteFlags&fuse.WRITE_CACHE == 0 && n.flags.Load()&direct == 0:
		return h.Value.pwrite(data, off)
	case o.writesBack():
		return o.writeBack(n, h, data, off)
	}
	return o.growing.store(n, h, data, off)
}

// writable returns n's object opened for writing, in the upper.
func (o *Overlay) writable(n *Node) (*held, error) {
	if err := o.copyUp(n, wholeFile); err != nil {
		return nil, err
	}
	return o.file(n, useWrite)
}

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
