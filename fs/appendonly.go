package fs

import (
	"bytes"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/owner"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// mayWrite reports whether n's flags allow a WRITE. skip is how many of its first bytes are not to be written, because an
// append-only file has them already.
func (o *Overlay) mayWrite(n *Node, in *fuse.WriteIn, data []byte) (skip int, err error) {
	protection, err := o.protection(n)
	switch {
	case err != nil || protection == 0:
		return 0, err
	case protection&immutable != 0:
		err = unix.EPERM
	case in.WriteFlags&fuse.WRITE_CACHE != 0:
		skip, err = o.mayWriteBack(n, in, data)
	default:
		err = o.mayAppend(n, in)
	}
	if err == unix.EPERM && in.WriteFlags&fuse.WRITE_CACHE != 0 {
		o.dropRefused(n, in)
	}
	return skip, err
}

// mayAppend checks a WRITE that comes with the flags of the file that it is made through.
func (o *Overlay) mayAppend(n *Node, in *fuse.WriteIn) error {
	if in.Flags&unix.O_APPEND == 0 {
		return unix.EPERM
	}
	size, err := o.dataSize(n)
	if err == nil && int64(in.Offset) < size { // RWF_NOAPPEND
		err = unix.EPERM
	}
	return err
}

// mayWriteBack checks pages of an append-only file that the kernel writes back. A WRITE of such
// pages does not contain which process has changed them, or how. The data that the file had at the
// first such WRITE must not differ. Data behind it counts as appended. (It may come in any order,
// so the end of the file is no bound.) That data is written after a refusal as well: with the
// writeback cache the kernel keeps its own size of the file, and the daemon cannot reduce it.
func (o *Overlay) mayWriteBack(n *Node, in *fuse.WriteIn, data []byte) (skip int, err error) {
	size, err := o.dataSize(n)
	if err != nil {
		return 0, err
	}
	fixed := n.fixSize(size)
	if skip = int(min(max(fixed-int64(in.Offset), 0), int64(len(data)))); skip == 0 {
		return 0, nil
	}
	h, err := o.file(n, useRead)
	if err != nil {
		return 0, err
	}
	defer o.handles.Release(h)
	old := make([]byte, skip)
	got, err := h.Value.file.Pread(old, int64(in.Offset))
	if err != nil || bytes.Equal(old[:got], data[:got]) {
		return got, err
	}
	w, err := o.writable(n)
	if err != nil {
		return 0, err
	}
	defer o.handles.Release(w)
	if _, err := w.Value.pwrite(data[got:], int64(in.Offset)+int64(got)); err != nil {
		return 0, err
	}
	return 0, unix.EPERM
}

// dataSize is the size of n's data in its layer.
func (o *Overlay) dataSize(n *Node) (int64, error) {
	var st sys.Stat
	err := o.with(n, func(r owner.Ref) error { return r.Inode().Stat(&st) })
	return st.Size, err
}

// fixSize returns the size up to which the data of an append-only file stays as it is, which is size at the first call.
func (n *Node) fixSize(size int64) int64 {
	n.mu.Lock()
	defer n.mu.Unlock()
	rare := n.setRareLocked()
	if rare.fixed == nil {
		rare.fixed = &size
	}
	return *rare.fixed
}

// unfixSize forgets that size.
func (n *Node) unfixSize() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.rare != nil {
		n.rare.fixed = nil
	}
}

// dropRefused makes the kernel drop pages that it may not write back, so that the mount does not go on showing what no layer
// has. The kernel waits for the answer to the WRITE before, so that must not wait for the kernel.
func (o *Overlay) dropRefused(n *Node, in *fuse.WriteIn) {
	if o.server != nil {
		id, offset, size := n.ID(), int64(in.Offset), int64(in.Size)
		go o.server.InodeNotify(id, offset, size)
	}
}

// refusesWrites reports whether writes to n are to fail before they reach the page cache. With the writeback cache a write(2)
// makes no request. But the kernel first requests the size of security.capability, if it does not
// know that there is none, and removes the attribute (file_remove_privs). An error of that is the
// error of write(2).
func (o *Overlay) refusesWrites(n *Node) bool {
	if !o.writesBack() || n.kind != unix.S_IFREG {
		return false
	}
	protection, err := o.protection(n)
	return err == nil && protection&immutable != 0
}

// capabilitySize is XATTR_CAPS_SZ_2, the size of a security.capability.
const capabilitySize = 20

// pwrite writes all of p at off; see [sys.File.Pwrite].
func (h *handle) pwrite(p []byte, off int64) (int, error) {
	if h.appends {
		return h.append(p, off)
	}
	return h.file.Pwrite(p, off)
}

// appendTries and appendPause bound the wait for what lies before the bytes to be appended: the kernel sends pages in their
// order, and several are served at a time.
const (
	appendTries = 100
	appendPause = 10 * time.Millisecond
)

// append is pwrite for a file that is opened with O_APPEND, where every write goes to the end: what the file has already must be
// the same in p. EPERM if it is not, or something is missing before off.
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
