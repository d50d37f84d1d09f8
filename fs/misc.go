package fs

import (
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/fs/stack"
	"github.com/fuse-overlay/fuse-overlay/internal/owner"
)

// Readlink answers READLINK; the kernel keeps the answer.
func (o *Overlay) Readlink(_ <-chan struct{}, h *fuse.InHeader) ([]byte, fuse.Status) {
	o.counts.add(opReadlink)
	n, err := o.node(h.NodeId)
	if err != nil {
		return nil, o.status("readlink", err)
	}
	if n.kind != unix.S_IFLNK {
		return nil, fuse.EINVAL
	}
	var target string
	err = o.with(n, func(r owner.Ref) (err error) { target, err = r.Readlink(); return err })
	return []byte(target), o.status("readlink", err)
}

// Access answers ACCESS, which the kernel does not ask under default_permissions.
func (o *Overlay) Access(<-chan struct{}, *fuse.AccessIn) fuse.Status {
	o.counts.add(opAccess)
	return fuse.ENOSYS
}

// SyncFS answers SYNCFS. Linux 6.18 sends it to virtiofs alone (fc->sync_fs).
func (o *Overlay) SyncFS() fuse.Status {
	o.counts.add(opSyncfs)
	if !o.syncs() || !o.stack.Writable() {
		return fuse.OK
	}
	o.slow()
	return o.status("syncfs", o.stack.Root(stack.Upper).SyncFS())
}
