package fs

import (
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/fs/conn"
	"github.com/fuse-overlay/fuse-overlay/inodecache"
)

// Stats is what an overlay has done since it was mounted.
type Stats struct {
	Requests []conn.RequestStats

	// CopyUps is how many objects were copied up, CopyUpBytes how many bytes of data they were given.
	CopyUps, CopyUpBytes uint64

	// Inodes is how many inodes the kernel knows, InodesMade how many it has ever got. A LOOKUP that
	// finds a known one makes none.
	Inodes, InodesMade uint64
	// Handles are the files and directories of layers that are kept open.
	Handles inodecache.Uses
	// DirLoads is how often a directory was read to make its name table.
	DirLoads uint64
	// PrefetchedReads is how many READs were answered with data that was read ahead of them.
	PrefetchedReads uint64
}

// Stats returns the counters of the overlay. They are not of one moment.
func (o *Overlay) Stats() Stats {
	return Stats{
		Requests: o.conn.Requests(),
		CopyUps:  o.copied.objects.Load(), CopyUpBytes: o.copied.bytes.Load(),
		Inodes: uint64(o.nodes.Len()), InodesMade: o.nodes.Made(),
		Handles:         o.handles.Uses(),
		DirLoads:        o.dirLoads.Load(),
		PrefetchedReads: o.prefetch.taken.Load(),
	}
}

// copyUpCounts counts copy-ups.
type copyUpCounts struct{ objects, bytes atomic.Uint64 }

// add counts a published copy-up.
func (c *copyUpCounts) add(done *copyUp) {
	c.objects.Add(1)
	if done.n.kind == unix.S_IFREG && done.data == nil {
		c.bytes.Add(uint64(done.amount.Of(done.before.Size)))
	}
}

// Layers are the directories of an overlay by their absolute paths.
type Layers struct {
	// Upper is empty if there is none.
	Upper string
	// Lowers and DataOnly begin with the topmost.
	Lowers, DataOnly []string
}

// Layers returns the directories of the overlay.
func (o *Overlay) Layers() Layers {
	return Layers{o.layerNames.upper, o.layerNames.lowers, o.layerNames.dataOnly}
}

// Mode is how the upper is written.
type Mode string

// The values of [Mode].
const (
	ModeReadOnly Mode = "read-only"
	ModeVolatile Mode = "volatile" // never waits for the disk
	ModeDurable  Mode = "read-write"
)

// Mode returns how the upper is written.
func (o *Overlay) Mode() Mode {
	switch {
	case !o.stack.Writable():
		return ModeReadOnly
	case o.cfg.Volatile:
		return ModeVolatile
	}
	return ModeDurable
}

// IO returns what the kernel caches and does by itself, as in the log. Precondition: mounted.
func (o *Overlay) IO() string { return o.policy.String() }
