package fs

import (
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// Who makes a file in order to write it, as those who unpack, copy and compile do, writes past the page cache of the mount: what he
// writes is in that of the upper, and the kernel then asks for no capabilities, keeps no second copy, and sends a write in one request
// wherever it begins. Others open, read and map the file as ever. That is possible while opens are not answered, because CREATE still
// is.
//
// What he reads by the same descriptor is read past the page cache too. So who opens a file to read it as well does it only with O_TRUNC,
// the mark of those who make it anew: a compiler's output, fopen's "w+". A database is opened without, and a temporary file that is
// read again mostly with O_EXCL. To files that are appended to, small pieces are written, which cost a tenth more so. With all of these
// the kernel does as if MKNOD had made them.

// directHandle is set in the handle that comes with the READs and WRITEs of such an open file.
const directHandle = 1

// writesDirectly reports whether who makes a file with these flags of open(2) is to write past the page cache.
func writesDirectly(flags uint32) bool {
	if flags&unix.O_APPEND != 0 {
		return false
	}
	mode := flags & unix.O_ACCMODE
	return mode == unix.O_WRONLY || mode == unix.O_RDWR && flags&unix.O_TRUNC != 0
}

// readsDirectly reports whether a READ is past the page cache: by such an open file, and not for a mapping or a splice of it. Only
// then does the kernel tell whose locks it would have to respect.
func readsDirectly(in *fuse.ReadIn) bool {
	return in.Fh&directHandle != 0 && in.ReadFlags&fuse.READ_LOCKOWNER != 0
}

// isDirect reports whether a WRITE is past the page cache, and not of what a mapping has left in it.
func isDirect(in *fuse.WriteIn) bool {
	return in.Fh&directHandle != 0 && in.WriteFlags&fuse.WRITE_CACHE == 0
}

// createDirect answers CREATE where OPEN is not answered.
func (o *Overlay) createDirect(in *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	n, status := o.makeFile(in, name, &out.EntryOut)
	if status != fuse.OK {
		return status
	}
	return o.openMade(n, in.Flags, out)
}

// willRead notes, before anything of n's data is read, that the page cache may have some of it afterwards.
func (n *Node) willRead() {
	if n.flags.Load()&(direct|hasRead) == direct {
		n.flags.Or(hasRead)
	}
}

// wroteDirectly ends a write past the page cache, which is not answered yet.
func (o *Overlay) wroteDirectly(h *held, in *fuse.WriteIn) error {
	if in.Flags&unix.O_DSYNC == 0 || !o.syncs() { // O_SYNC has that bit too
		return nil
	}
	return o.syncData(h, in.Flags&unix.O_SYNC != unix.O_SYNC)
}

// dropPages has the kernel drop pages of n, and write what is dirty of them. size 0 is all that follows. Pages that are being read it
// waits for, until that READ has been answered.
func (o *Overlay) dropPages(n *Node, offset, size int64) {
	if o.server != nil {
		o.conn.While(func() { o.server.InodeNotify(n.ID(), offset, size) })
	}
}
