package fs

import (
	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/fuse-overlay/fuse-overlay/fs/conn"
)

// server is the part of [fuse.Server] that sends notifications.
type server interface {
	pruned
	// InodeNotify makes the kernel drop the attributes of an inode. If offset is not negative, the
	// kernel drops pages from there on as well; length 0 is all that follows.
	InodeNotify(id uint64, offset, length int64) fuse.Status
	// InodeNotifyStoreCache puts data into the page cache. If it lies beyond the end, the file grows.
	InodeNotifyStoreCache(id uint64, offset int64, data []byte) fuse.Status
}

// notifier sends notifications to the kernel. No lock is held then, because the kernel may send
// requests before it returns.
type notifier struct {
	server // nil: no connection to notify; set by Connected
	conn   *conn.Conn
}

// connected reports whether there is a kernel to notify.
func (k *notifier) connected() bool { return k.server != nil }

// dropAttr makes the kernel drop the attributes of an inode. After a change of data it reads size
// and times again by itself, but it would execute a file with the suid that it knows. After a
// copy-up it knows the link count of the lower.
func (k *notifier) dropAttr(id uint64) {
	if k.connected() {
		const noPages = -1
		k.InodeNotify(id, noPages, 0)
	}
}

// dropPages makes the kernel drop pages of an inode, and write those that are dirty; size 0: all
// from offset on. The kernel waits for a READ of such a page to be answered.
func (k *notifier) dropPages(id uint64, offset, size int64) {
	if k.connected() {
		k.conn.While(func() { k.InodeNotify(id, offset, size) })
	}
}

// dropListing makes the kernel drop the listing and the attributes of a directory. The kernel waits
// for processes that it returns the listing to. Their memory may be a file of this mount, of which
// it reads a page then.
func (k *notifier) dropListing(id uint64) {
	if k.connected() {
		k.conn.While(func() { k.InodeNotify(id, 0, 0) })
	}
}

// grow makes the kernel extend an inode to the end of data, which lies at offset.
func (k *notifier) grow(id uint64, offset int64, data []byte) {
	k.conn.While(func() { k.InodeNotifyStoreCache(id, offset, data) })
}
