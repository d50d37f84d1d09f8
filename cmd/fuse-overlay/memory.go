package main

import (
	"math"
	"runtime/debug"

	"github.com/fuse-overlay/fuse-overlay/internal/host"
)

const (
	// littleMemory is the limit of memory, in bytes, below which requests are small: each of the
	// threads that serve requests has room for two.
	littleMemory = 512 << 20
	// smallRequest is the largest READ and WRITE then, in bytes.
	smallRequest = 128 << 10
)

// fitMemory has the daemon stay below the memory limit of its cgroup, which would end it, and the
// mount with it. The Go heap may take three quarters, what the kernel and the daemon know of inodes
// a quarter. The rest is for what collections of garbage leave behind, and for the kernel. Options,
// and GOMEMLIMIT, take precedence.
func (r *request) fitMemory() {
	limit := host.MemoryLimit()
	if limit == 0 {
		return
	}
	if debug.SetMemoryLimit(-1) == math.MaxInt64 {
		debug.SetMemoryLimit(limit / 4 * 3)
	}
	if r.overlay.CacheInodes == 0 {
		r.overlay.CacheMemory = limit / 4
	}
	if r.overlay.Conn.MaxWrite == 0 && limit < littleMemory {
		r.overlay.Conn.MaxWrite = smallRequest
	}
}
