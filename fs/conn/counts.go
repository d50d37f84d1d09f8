package conn

import (
	"sync/atomic"
	"time"

	"github.com/fuse-overlay/fuse-overlay/fs/conn/wire"
)

// counter counts requests by kind.
type counter struct{ n [wire.Opcodes]atomic.Uint64 }

// add counts n requests of one kind.
func (c *counter) add(op wire.Opcode, n uint64) {
	op = countedAs(op)
	if op < wire.Opcodes {
		c.n[op].Add(n)
	}
}

// countedAs returns the kind as which a request counts.
func countedAs(op wire.Opcode) wire.Opcode {
	if op == wire.OpRename2 {
		return wire.OpRename
	}
	return op
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

// RequestStats are the requests of one kind.
type RequestStats struct {
	// Kind is the name in linux/fuse.h without the prefix.
	Kind string
	// Count is how many there were. Those that are not answered yet count.
	Count uint64
	// Latency is how long the answered ones took from their decoding to their reply, by buckets, the
	// shortest first. FORGET has no reply and no latency.
	Latency []Bucket
	// Total is the sum of these latencies.
	Total time.Duration
}

// Requests returns the kinds of requests that were served, in the order of their numbers in
// linux/fuse.h.
func (c *Conn) Requests() (list []RequestStats) {
	for op := range wire.Opcode(wire.Opcodes) {
		if !op.IsKnown() || isHidden(op) {
			continue
		}
		// The latencies come first: what is answered has been counted.
		latency, total := c.latencies.snapshot(op)
		if n := c.counts.n[op].Load(); n > 0 {
			list = append(list, RequestStats{op.String(), n, latency, total})
		}
	}
	return list
}
