package conn

import (
	"sync/atomic"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/fs/conn/wire"
)

// Gate lets requests that may change the upper pass, or refuses them. It refuses them on a mount
// that has handed its upper over. It also does on a mount that has the upper for reading only,
// because mount(8) can remount that one as writable in the kernel. The zero value lets all pass.
type Gate struct {
	errno   atomic.Int32 // what such requests are refused with; 0: they pass
	running atomic.Int64 // how many have passed and are not done
}

// Enter counts a request that passes; else it returns the errno to refuse it with. A request that passes calls Leave in the end.
func (g *Gate) Enter() unix.Errno {
	g.running.Add(1)
	errno := unix.Errno(g.errno.Load())
	if errno != 0 {
		g.running.Add(-1)
	}
	return errno
}

// Leave ends what Enter has begun.
func (g *Gate) Leave() { g.running.Add(-1) }

// Shut refuses what comes from now on. Requests that have passed go on.
func (g *Gate) Shut(errno unix.Errno) { g.errno.Store(int32(errno)) }

// Open takes Shut back.
func (g *Gate) Open() { g.errno.Store(0) }

// IsShut reports whether requests are refused.
func (g *Gate) IsShut() bool { return g.errno.Load() != 0 }

// Passed is how many requests have passed and are not done.
func (g *Gate) Passed() int64 { return g.running.Load() }

// mayChange reports whether a request may change the file system.
func mayChange(h *fuse.InHeader, in []byte) bool {
	switch wire.Opcode(h.Opcode) {
	case wire.OpSetattr, wire.OpSymlink, wire.OpMknod, wire.OpMkdir, wire.OpUnlink, wire.OpRmdir, wire.OpRename, wire.OpLink,
		wire.OpWrite, wire.OpSetxattr, wire.OpRemovexattr, wire.OpCreate, wire.OpFallocate, wire.OpRename2,
		wire.OpCopyFileRange, wire.OpTmpfile, wire.OpCopyFileRange64:
		return true
	case wire.OpOpen: // with passthrough the copy-up comes at open
		a := wire.Argument[fuse.OpenIn](in)
		return a != nil && (a.Flags&unix.O_ACCMODE != unix.O_RDONLY || a.Flags&unix.O_TRUNC != 0)
	case wire.OpIoctl:
		a := wire.Argument[fuse.IoctlIn](in)
		return a != nil && (a.Cmd == wire.IoctlSetFlags || a.Cmd == wire.IoctlFssetxattr)
	}
	return false
}
