package conn

import (
	"sync/atomic"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/fs/conn/wire"
)

// Gate refuses the requests that may change the file system, while it is shut. On a read-only mount
// it is shut, because mount(8) can make the mount writable in the kernel. On a mount that has
// handed over its upper it is shut too. The zero value is open.
type Gate struct {
	errno   atomic.Int32 // the error of refused requests; 0: the gate is open
	running atomic.Int64 // requests between Enter and Leave
}

// Enter begins a request, which calls Leave at its end. It returns the errno of the reply if the
// gate is shut; then the request has not begun.
func (g *Gate) Enter() unix.Errno {
	g.running.Add(1)
	errno := unix.Errno(g.errno.Load())
	if errno != 0 {
		g.running.Add(-1)
	}
	return errno
}

// Leave ends a request.
func (g *Gate) Leave() { g.running.Add(-1) }

// Shut refuses requests from now on. Requests that have begun go on.
func (g *Gate) Shut(errno unix.Errno) { g.errno.Store(int32(errno)) }

// Open takes Shut back.
func (g *Gate) Open() { g.errno.Store(0) }

// IsShut reports whether requests are refused.
func (g *Gate) IsShut() bool { return g.errno.Load() != 0 }

// Running returns how many requests have begun and are not done.
func (g *Gate) Running() int64 { return g.running.Load() }

// mayChange reports whether a request may change the file system.
func mayChange(h *fuse.InHeader, in []byte) bool {
	switch wire.Opcode(h.Opcode) {
	case wire.OpSetattr, wire.OpSymlink, wire.OpMknod, wire.OpMkdir, wire.OpUnlink, wire.OpRmdir, wire.OpRename, wire.OpLink,
		wire.OpWrite, wire.OpSetxattr, wire.OpRemovexattr, wire.OpCreate, wire.OpFallocate, wire.OpRename2,
		wire.OpCopyFileRange, wire.OpTmpfile, wire.OpCopyFileRange64:
		return true
	case wire.OpOpen: // with passthrough, OPEN copies up
		a := wire.Argument[fuse.OpenIn](in)
		return a != nil && (a.Flags&unix.O_ACCMODE != unix.O_RDONLY || a.Flags&unix.O_TRUNC != 0)
	case wire.OpIoctl:
		a := wire.Argument[fuse.IoctlIn](in)
		return a != nil && (a.Cmd == wire.IoctlSetFlags || a.Cmd == wire.IoctlFssetxattr)
	}
	return false
}
