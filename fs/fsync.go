package fs

import (
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/fs/stack"
)

// Fsync answers FSYNC. What lies in a lower is durable.
func (o *Overlay) Fsync(_ <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	n, err := o.node(in.NodeId)
	if err != nil {
		return o.status("fsync", err)
	}
	if !o.syncs() || !n.inUpper() {
		return fuse.OK
	}
	if n.place().data != nil {
		return o.status("fsync", o.syncOwn(n))
	}
	h, err := o.file(n, forReading)
	if err != nil {
		return o.status("fsync", err)
	}
	defer o.handles.Release(h)
	if in.FsyncFlags&fsyncDataOnly != 0 {
		return o.status("fsync", o.syncFileData(h))
	}
	return o.status("fsync", o.syncFile(h))
}

// syncs reports whether the requests to make data durable do so.
func (o *Overlay) syncs() bool { return !o.cfg.Volatile && !o.cfg.NoFsync }

// syncFile makes a file of the upper durable.
func (o *Overlay) syncFile(h *held) error {
	o.conn.Slow()
	return h.Value.file.Sync()
}

// syncFileData makes the data of a file of the upper durable, and what is needed to find it.
func (o *Overlay) syncFileData(h *held) error {
	o.conn.Slow()
	return h.Value.file.Datasync()
}

// syncOwn makes the attributes of a file durable whose data is elsewhere.
func (o *Overlay) syncOwn(n *Node) error {
	o.conn.Slow()
	file, err := o.ownFile(n, forReading)
	if err != nil {
		return err
	}
	defer file.Close()
	return file.Sync()
}

// fsyncDataOnly is FUSE_FSYNC_FDATASYNC.
const fsyncDataOnly = 1

// FsyncDir answers FSYNCDIR.
func (o *Overlay) FsyncDir(_ <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	n, err := o.node(in.NodeId)
	if err != nil {
		return o.status("fsyncdir", err)
	}
	if !o.syncs() || !n.inUpper() {
		return fuse.OK
	}
	o.conn.Slow()
	d := o.openDir(n)
	defer d.release()
	up, err := d.upper()
	if err == unix.ENOENT && n.place().unlinked {
		return fuse.OK
	}
	if err == nil {
		err = up.Sync()
	}
	return o.status("fsyncdir", err)
}

// SyncFS answers SYNCFS. Linux 6.18 sends it to virtiofs alone (fc->sync_fs).
func (o *Overlay) SyncFS() fuse.Status {
	if !o.syncs() || !o.stack.Writable() {
		return fuse.OK
	}
	o.conn.Slow()
	return o.status("syncfs", o.stack.Root(stack.Upper).SyncFS())
}
