package fs

import (
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// A process that creates a file only to write it (tar, cp, dd, package managers, compilers) gets
// FOPEN_DIRECT_IO. Its writes bypass the page cache of the mount. So the data is cached once, in
// the upper file, the kernel requests no capabilities before a write, and a write is one request
// wherever it begins. Other processes open, read and map the file as ever. CREATE makes that
// possible, which the kernel sends while OPEN is not answered.
//
// What such a process reads by the same descriptor bypasses the page cache too. So a file that is
// opened for reading as well gets FOPEN_DIRECT_IO only with O_TRUNC, as a compiler's output and
// fopen's "w+". A database is opened without O_TRUNC, and a temporary file that is read again
// mostly with O_EXCL. Small pieces that are appended would cost a tenth more. For all of these the
// kernel does as if MKNOD had made them.

// directHandle is a bit of the handle in the READs and WRITEs of a descriptor with FOPEN_DIRECT_IO.
const directHandle = 1

// writesDirectly reports whether a process that makes a file with these flags of open(2) writes
// past the page cache.
func writesDirectly(flags uint32) bool {
	if flags&unix.O_APPEND != 0 {
		return false
	}
	mode := flags & unix.O_ACCMODE
	return mode == unix.O_WRONLY || mode == unix.O_RDWR && flags&unix.O_TRUNC != 0
}

// readsDirectly reports whether a READ bypasses the page cache: by such a descriptor, and not for a
// mapping or a splice of it. Only then does the READ contain the lock owner.
func readsDirectly(in *fuse.ReadIn) bool {
	return in.Fh&directHandle != 0 && in.ReadFlags&fuse.READ_LOCKOWNER != 0
}

// isDirect reports whether a WRITE bypasses the page cache. A WRITE of what a mapping has left
// there does not.
func isDirect(in *fuse.WriteIn) bool {
	return in.Fh&directHandle != 0 && in.WriteFlags&fuse.WRITE_CACHE == 0
}

// willRead notes, before anything of n's data is read, that the page cache may have some of it
// afterwards.
func (n *Node) willRead() {
	if n.flags.load()&(flagDirectIO|flagPagesRead) == flagDirectIO {
		n.flags.set(flagPagesRead)
	}
}
