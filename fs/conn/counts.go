package conn

import (
	"sync/atomic"

	"github.com/fuse-overlay/fuse-overlay/fs/conn/wire"
)

// counter counts requests by kind.
type counter struct{ n [wire.Opcodes]atomic.Uint64 }

// add counts n requests of one kind.
func (c *counter) add(op wire.Opcode, n uint64) {
	if op == wire.OpRename2 {
		op = wire.OpRename
	}
	if op < wire.Opcodes {
		c.n[op].Add(n)
	}
}

// snapshot returns the counters by the names of their kinds.
func (c *counter) snapshot() map[string]uint64 {
	m := map[string]uint64{}
	for op := range wire.Opcode(wire.Opcodes) {
		if op.IsKnown() && !isHidden(op) {
			m[op.String()] = c.n[op].Load()
		}
	}
	return m
}

// isHidden reports whether a kind has no counter of its own: it is none of the file system, or it
// counts as another.
func isHidden(op wire.Opcode) bool {
	switch op {
	case wire.OpInit, wire.OpInterrupt, wire.OpPoll, wire.OpBatchForget, wire.OpRename2, wire.OpCopyFileRange64:
		return true
	}
	return false
}
