package fs

import (
	"math"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/fs/stack"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// Write answers WRITE. The first one to a file of a lower copies it up.
func (o *Overlay) Write(_ <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	n, err := o.node(in.NodeId)
	if err != nil {
		return 0, o.status("write", err)
	}
	w := write{o: o, n: n, in: in}
	done, err := w.run(data)
	return uint32(done), o.status("write", err)
}

// write is one WRITE under way.
type write struct {
	o  *Overlay
	n  *Node
	in *fuse.WriteIn
	h  *held // of n, opened for writing
}

// run writes data, and returns how much. A short count without an error makes the caller's write(2)
// short, and its next one returns the error. The kernel does not read the count if it writes pages
// back (fuse_writepage_end), so then any error is returned.
func (w *write) run(data []byte) (done int, err error) {
	o := w.o
	skip, err := w.check(data)
	if err != nil {
		return 0, err
	}
	if w.h, err = o.writable(w.n); err != nil {
		return 0, err
	}
	defer o.handles.Release(w.h)
	if w.in.WriteFlags&fuse.WRITE_KILL_SUIDGID != 0 { // first, as file_remove_privs: no new data behind an old suid
		if err := o.killSuid(w.n, &w.in.InHeader); err != nil {
			return 0, err
		}
	}
	done, err = w.store(data[skip:], int64(w.in.Offset)+int64(skip))
	if done += skip; err != nil && (done == 0 || w.in.WriteFlags&fuse.WRITE_CACHE != 0) {
		return 0, err
	}
	if isDirect(w.in) {
		if err := w.syncDirect(); err != nil {
			return 0, err
		}
	}
	o.writeOut(w.n, int64(w.in.Offset), int64(done))
	return done, nil
}

// writable returns n's object opened for writing, in the upper.
func (o *Overlay) writable(n *Node) (*held, error) {
	if err := o.copyUp(n, wholeFile); err != nil {
		return nil, err
	}
	return o.file(n, forWriting)
}

// store puts data into the file at off.
func (w *write) store(data []byte, off int64) (int, error) {
	switch {
	case isDirect(w.in):
		return w.storeDirect(data, off)
	case w.in.WriteFlags&fuse.WRITE_CACHE == 0 && !w.n.flags.has(flagDirectIO):
		return w.h.Value.pwrite(data, off)
	case w.o.writesBack():
		return w.storeKeepingTime(data, off)
	}
	return w.o.ranges.storeWriteback(w.n, w.h, data, off)
}

// storeDirect stores what was written past the page cache, see [changingRanges].
func (w *write) storeDirect(data []byte, off int64) (done int, err error) {
	o, n, h := w.o, w.n, w.h
	change := rangeChange{size: math.MaxInt64, from: off, to: off + int64(len(data))}
	var st sys.Stat
	if !o.policy.DirectIO && o.kernel.connected() { // with passthrough, and where layers change
		if err := h.Value.file.Ref().Stat(&st); err != nil {
			return 0, err
		}
		if change.to > st.Size {
			change.size = st.Size
		}
	}
	o.ranges.begin(n, change)
	defer o.ranges.end(n)
	done, err = h.Value.pwrite(data, off)
	end := off + int64(done)
	if change.size < end && done > 0 {
		o.kernel.grow(n.ID(), end-1, data[done-1:done])
		n.flags.clear(flagPagesRead)
		from := min(off, change.size)
		o.kernel.dropPages(n.ID(), from, end-from)
		return done, err
	}
	// WRITEs of one inode come one after the other (fuse_dio_lock), so that nothing else clears the
	// flag.
	if done > 0 && n.flags.clear(flagPagesRead)&flagPagesRead != 0 {
		o.kernel.dropPages(n.ID(), off, int64(done))
	}
	return done, err
}

// storeKeepingTime stores what the kernel writes back from its writeback cache, and keeps st_mtime
// as it is.
//
// With that cache the kernel keeps st_mtime by itself. It sends the time with a SETATTR after the
// data, but only if the time has changed: a write(2) within the same tick of the clock as the
// creation of the file changes none. The WRITE that brings the data later must not change st_mtime
// either, or the file would show another time as soon as the kernel has forgotten it.
func (w *write) storeKeepingTime(data []byte, off int64) (int, error) {
	l := w.o.ranges.lock(w.n)
	l.Lock()
	defer l.Unlock()
	file := w.h.Value.file.Ref()
	var st sys.Stat
	if err := file.Stat(&st); err != nil {
		return 0, err
	}
	done, err := w.o.ranges.storeWritebackLocked(w.n, w.h, data, off)
	if done > 0 {
		// A file of another user, which the daemon may write but not date, keeps the time of the WRITE.
		back := file.Utimes(unix.Timespec{Nsec: unix.UTIME_OMIT}, st.Mtim)
		if back != nil && back != unix.EPERM && back != unix.EACCES {
			return 0, back
		}
	}
	return done, err
}

// syncDirect makes a WRITE past the page cache durable if the file is open with O_SYNC or O_DSYNC.
// The kernel sends no FSYNC for it.
func (w *write) syncDirect() error {
	if w.in.Flags&unix.O_DSYNC == 0 || !w.o.syncs() { // O_SYNC has that bit too
		return nil
	}
	if w.in.Flags&unix.O_SYNC == unix.O_SYNC {
		return w.o.syncFile(w.h)
	}
	return w.o.syncFileData(w.h)
}

const (
	// writeOutStep is after how many bytes of a file the disk gets work, and how much at a time. A
	// daemon that ends has to wait for the call under way, and keeps its lock on the upper until then.
	writeOutStep = 8 << 20
	// maxWriteOut is how far the disk may be behind. Older data is left to the kernel.
	maxWriteOut = 8 * writeOutStep
)

// writeOut begins to write large data to the disk while more of it comes, after every write to n's
// object of the upper.
//
// Otherwise all of it would be written when fsync requires that, or when a tenth of the memory is
// dirty. Each request is a copy that the disk need not wait for. Small files, which may be removed
// again soon, are left to the kernel. No request waits for the disk. The next fsync of the file
// returns an error of it (errseq_t of the kernel).
func (o *Overlay) writeOut(n *Node, off, size int64) {
	end := (off + size) &^ (writeOutStep - 1)
	if size < bulk || end <= off || !o.syncs() || o.writingOut.Swap(true) {
		return
	}
	h := o.handles.Acquire(n.handleKey(stack.Upper, forWriting))
	if h == nil {
		o.writingOut.Store(false)
		return
	}
	go func() {
		for at := max(0, end-maxWriteOut); at < end; at += writeOutStep {
			_ = h.Value.file.StartWriteBack(at, writeOutStep) // what is clean or on its way costs nothing
		}
		o.handles.Release(h)
		o.writingOut.Store(false)
	}()
}
