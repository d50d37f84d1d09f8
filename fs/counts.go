package fs

import "sync/atomic"

// op is a kind of request.
type op int

const (
	opLookup op = iota
	opForget
	opGetattr
	opSetattr
	opReadlink
	opSymlink
	opMknod
	opMkdir
	opUnlink
	opRmdir
	opRename
	opLink
	opOpen
	opRead
	opWrite
	opStatfs
	opRelease
	opFsync
	opSetxattr
	opGetxattr
	opListxattr
	opRemovexattr
	opFlush
	opOpendir
	opReaddir
	opReleasedir
	opFsyncdir
	opCreate
	opIoctl
	opFallocate
	opReaddirplus
	opLseek
	opCopyFileRange
	opTmpfile
	opStatx
	opAccess
	opSyncfs
	ops
)

var opNames = [ops]string{
	"LOOKUP", "FORGET", "GETATTR", "SETATTR", "READLINK", "SYMLINK", "MKNOD", "MKDIR", "UNLINK", "RMDIR", "RENAME", "LINK",
	"OPEN", "READ", "WRITE", "STATFS", "RELEASE", "FSYNC", "SETXATTR", "GETXATTR", "LISTXATTR", "REMOVEXATTR", "FLUSH",
	"OPENDIR", "READDIR", "RELEASEDIR", "FSYNCDIR", "CREATE", "IOCTL", "FALLOCATE", "READDIRPLUS", "LSEEK",
	"COPY_FILE_RANGE", "TMPFILE", "STATX", "ACCESS", "SYNCFS",
}

// counter counts requests by kind.
type counter struct{ n [ops]atomic.Uint64 }

func (c *counter) add(o op) { c.n[o].Add(1) }

func (c *counter) snapshot() map[string]uint64 {
	m := make(map[string]uint64, ops)
	for i := range c.n {
		m[opNames[i]] = c.n[i].Load()
	}
	return m
}
