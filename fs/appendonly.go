package fs

import (
	"bytes"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/owner"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// check reports EPERM if n's flags do not allow the WRITE. skip is how many of its first bytes are
// not to be written, because an append-only file has them already.
func (w *write) check(data []byte) (skip int, err error) {
	protection, err := w.o.guard.protection(w.n)
	switch {
	case err != nil || protection == 0:
		return 0, err
	case protection&flagImmutable != 0:
		err = unix.EPERM
	case w.in.WriteFlags&fuse.WRITE_CACHE != 0:
		skip, err = w.checkWriteback(data)
	default:
		err = w.checkAppend()
	}
	if err == unix.EPERM && w.in.WriteFlags&fuse.WRITE_CACHE != 0 {
		w.dropRefused()
	}
	return skip, err
}

// checkAppend checks a WRITE to an append-only file that comes from write(2), with the flags of the
// open file.
func (w *write) checkAppend() error {
	if w.in.Flags&unix.O_APPEND == 0 {
		return unix.EPERM
	}
	size, err := w.o.dataSize(w.n)
	if err == nil && int64(w.in.Offset) < size { // RWF_NOAPPEND
		err = unix.EPERM
	}
	return err
}

// checkWriteback checks pages of an append-only file that the kernel writes back. Such a WRITE does
// not contain which process has changed them, or how. The data that the file had at the first such
// WRITE must not differ. Data behind it counts as appended. (It may come in any order, so the end
// of the file is no bound.)
//
// Appended data is written after a refusal as well: with the writeback cache the kernel keeps its
// own size of the file, and the daemon cannot reduce it.
func (w *write) checkWriteback(data []byte) (skip int, err error) {
	o, n, off := w.o, w.n, int64(w.in.Offset)
	size, err := o.dataSize(n)
	if err != nil {
		return 0, err
	}
	fixed := n.fixSize(size)
	if skip = int(min(max(fixed-off, 0), int64(len(data)))); skip == 0 {
		return 0, nil
	}
	h, err := o.file(n, forReading)
	if err != nil {
		return 0, err
	}
	defer o.handles.Release(h)
	old := make([]byte, skip)
	got, err := h.Value.file.Pread(old, off)
	if err != nil || bytes.Equal(old[:got], data[:got]) {
		return got, err
	}
	to, err := o.writable(n)
	if err != nil {
		return 0, err
	}
	defer o.handles.Release(to)
	if _, err := to.Value.pwrite(data[got:], off+int64(got)); err != nil {
		return 0, err
	}
	return 0, unix.EPERM
}

// dropRefused makes the kernel drop pages that it may not write back. Otherwise the mount would go
// on showing what no layer has. The kernel drops them when it has the reply to the WRITE, so the
// WRITE must not wait for that.
func (w *write) dropRefused() {
	if o := w.o; o.kernel.connected() {
		id, offset, size := w.n.ID(), int64(w.in.Offset), int64(w.in.Size)
		go o.kernel.InodeNotify(id, offset, size)
	}
}

// dataSize returns the size of n's data in its layer.
func (a *access) dataSize(n *Node) (int64, error) {
	var st sys.Stat
	err := a.with(n, func(r owner.Ref) error { return r.Inode().Stat(&st) })
	return st.Size, err
}

// fixSize returns the size up to which the data of an append-only file stays as it is. That is size
// at the first call.
func (n *Node) fixSize(size int64) int64 {
	n.mu.Lock()
	defer n.mu.Unlock()
	rare := n.setRareLocked()
	if rare.fixedSize == nil {
		rare.fixedSize = &size
	}
	return *rare.fixedSize
}

// unfixSize forgets that size.
func (n *Node) unfixSize() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.rare != nil {
		n.rare.fixedSize = nil
	}
}

// pwrite writes all of p at off, see [sys.File.Pwrite].
func (h *handle) pwrite(p []byte, off int64) (int, error) {
	if h.appends {
		return h.append(p, off)
	}
	return h.file.Pwrite(p, off)
}

// appendTries and appendPause bound how long append waits for the bytes before its own. The kernel
// sends pages in their order, and the daemon serves several at a time.
const (
	appendTries = 100
	appendPause = 10 * time.Millisecond
)

// append is pwrite for a file that is opened with O_APPEND, where every write goes to the end.
// EPERM if the file has other bytes in the range of p, or if bytes before off are missing.
func (h *handle) append(p []byte, off int64) (int, error) {
	for range appendTries {
		var st sys.Stat
		if err := h.file.Ref().Stat(&st); err != nil {
			return 0, err
		}
		if st.Size < off {
			time.Sleep(appendPause)
			continue
		}
		has := make([]byte, min(st.Size-off, int64(len(p))))
		got, err := h.file.Pread(has, off)
		if err != nil {
			return 0, err
		}
		if got < len(has) || !bytes.Equal(has, p[:got]) {
			break
		}
		done, err := h.file.Pwrite(p[got:], st.Size)
		return got + done, err
	}
	return 0, unix.EPERM
}
