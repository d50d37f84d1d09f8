package fs

import (
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

const (
	// pruneBatch is how many inodes the kernel is asked to let go at a time.
	pruneBatch = 1024
	// pruneTurns is how many batches in a row may have no effect before the rest is taken to be in use.
	pruneTurns = 8
	// pruneWait is how long the FORGETs of a batch may take to come.
	pruneWait = 2 * time.Millisecond
	// pruneRest is how long pruning rests after it found no more to be let go.
	pruneRest = 100 * time.Millisecond
)

// pruned is who can be asked to drop inodes: *fuse.Server.
type pruned interface {
	PruneNotify(nodes []uint64) fuse.Status
	EntryNotify(parent uint64, name string) fuse.Status
}

// crowded wakes the pruner when there are more nodes than there should be. It may be called with locks held.
func (o *Overlay) crowded() {
	if o.cfg.CacheInodes > 0 && o.nodes.Len() > o.cfg.CacheInodes {
		select {
		case o.overfull <- struct{}{}:
		default:
		}
	}
}

// prune keeps the table near its bound, until done is closed: the kernel holds the nodes, so it is asked to drop inodes that
// nobody uses (FUSE_NOTIFY_PRUNE, Linux 6.18; before, by invalidating their names), and answers by FORGETs.
func (o *Overlay) prune(kernel pruned, done <-chan struct{}) {
	for {
		select {
		case <-done:
			return
		case <-o.overfull:
		}
		// Somewhat below, so that not every new node begins it again.
		target := o.cfg.CacheInodes - o.cfg.CacheInodes/16
		for vain := 0; vain < pruneTurns && o.nodes.Len() > target; {
			before := o.nodes.Len()
			if !o.pruneSome(kernel, min(pruneBatch, max(before-target, 1))) {
				return
			}
			time.Sleep(pruneWait)
			if o.nodes.Len() < before {
				vain = 0
			} else {
				vain++
			}
		}
		if o.nodes.Len() > target {
			time.Sleep(pruneRest)
		}
	}
}

// pruneSome asks the kernel to let some nodes go, and reports false when it cannot be asked any more.
func (o *Overlay) pruneSome(kernel pruned, limit int) bool {
	some := o.nodes.Sample(limit, func(n *Node) bool { return n != o.root && n.leaf() })
	ids := make([]uint64, len(some))
	for i, n := range some {
		ids[i] = n.ID()
	}
	status := kernel.PruneNotify(ids)
	if status == fuse.ENOSYS {
		for _, n := range some {
			if p := n.place(); p.parent != nil && !p.gone {
				status = kernel.EntryNotify(p.parent.ID(), p.name)
			}
		}
	}
	switch status {
	case fuse.OK, fuse.ENOENT, fuse.Status(unix.ENOTEMPTY):
		return true
	}
	o.log.Debug("the kernel cannot be asked to forget", zap.Stringer("status", status))
	return false
}
