package conn

import (
	"sync/atomic"

	"github.com/fuse-overlay/fuse-overlay/fs/conn/wire"
)

// counted maps the opcodes that are counted to those they count as.
var counted = [wire.Opcodes]wire.Opcode{
	wire.OpLookup: wire.OpLookup, wire.OpForget: wire.OpForget, wire.OpGetattr: wire.OpGetattr,
	wire.OpSetattr: wire.OpSetattr, wire.OpReadlink: wire.OpReadlink, wire.OpSymlink: wire.OpSymlink,
	wire.OpMknod: wire.OpMknod, wire.OpMkdir: wire.OpMkdir, wire.OpUnlink: wire.OpUnlink, wire.OpRmdir: wire.OpRmdir,
	wire.OpRename: wire.OpRename, wire.OpRename2: wire.OpRename, wire.OpLink: wire.OpLink, wire.OpOpen: wire.OpOpen,
	wire.OpRead: wire.OpRead, wire.OpWrite: wire.OpWrite, wire.OpStatfs: wire.OpStatfs, wire.OpRelease: wire.OpRelease,
	wire.OpFsync: wire.OpFsync, wire.OpSetxattr: wire.OpSetxattr, wire.OpGetxattr: wire.OpGetxattr,
	wire.OpListxattr: wire.OpListxattr, wire.OpRemovexattr: wire.OpRemovexattr, wire.OpFlush: wire.OpFlush,
	wire.OpOpendir: wire.OpOpendir, wire.OpReaddir: wire.OpReaddir, wire.OpReleasedir: wire.OpReleasedir,
	wire.OpFsyncdir: wire.OpFsyncdir, wire.OpCreate: wire.OpCreate, wire.OpIoctl: wire.OpIoctl,
	wire.OpFallocate: wire.OpFallocate, wire.OpReaddirplus: wire.OpReaddirplus, wire.OpLseek: wire.OpLseek,
	wire.OpCopyFileRange: wire.OpCopyFileRange, wire.OpTmpfile: wire.OpTmpfile, wire.OpStatx: wire.OpStatx,
	wire.OpAccess: wire.OpAccess, wire.OpSyncfs: wire.OpSyncfs,
}

// counter counts requests by kind.
type counter struct{ n [wire.Opcodes]atomic.Uint64 }

// add counts n requests of one kind. Kinds that have no counter are ignored.
func (c *counter) add(op wire.Opcode, n uint64) {
	if op < wire.Opcodes {
		c.n[counted[op]].Add(n)
	}
}

// snapshot returns the counters by the names of their kinds.
func (c *counter) snapshot() map[string]uint64 {
	m := make(map[string]uint64, len(counted))
	for op, as := range counted {
		if as != 0 && as == wire.Opcode(op) {
			m[as.String()] = c.n[as].Load()
		}
	}
	return m
}
