package fs

import (
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

const (
	// pruneBatch is how many inodes one notification names.
	pruneBatch = 1024
	// pruneTurns is how many batches in a row may have no effect before the pruner takes the rest to
	// be in use.
	pruneTurns = 8
	// pruneWait is how long the FORGETs of a batch may take.
	pruneWait = 2 * time.Millisecond
	// pruneRest is how long the pruner rests if it could not reach its target.
	pruneRest = 100 * time.Millisecond
)

// pruned is the part of [fuse.Server] that makes the kernel drop inodes.
type pruned interface {
	PruneNotify(nodes []uint64) fuse.Status
	EntryNotify(parent uint64, name string) fuse.Status
}

// pruner keeps the table of nodes near its bound. The kernel holds the nodes, so the pruner makes
// it drop inodes that no process uses: by FUSE_NOTIFY_PRUNE (Linux 6.18), before by invalidating
// their names. The kernel answers with FORGETs.
type pruner struct {
	a     *access
	bound int // of nodes; 0: none
	log   *zap.Logger
	wakes chan struct{}
}

func newPruner(a *access, bound int, log *zap.Logger) pruner {
	return pruner{a: a, bound: bound, log: log, wakes: make(chan struct{}, 1)}
}

// wake wakes the pruner if there are more nodes than the bound. It may be called with locks held.
func (p *pruner) wake() {
	if p.bound > 0 && p.a.nodes.Len() > p.bound {
		select {
		case p.wakes <- struct{}{}:
		default:
		}
	}
}

// run prunes until done is closed, or until the kernel takes no notification.
func (p *pruner) run(kernel pruned, done <-chan struct{}) {
	for {
		select {
		case <-done:
			return
		case <-p.wakes:
		}
		// Somewhat below the bound, so that not every new node begins it again.
		target := p.bound - p.bound/16
		for vain := 0; vain < pruneTurns && p.a.nodes.Len() > target; {
			before := p.a.nodes.Len()
			if !p.pruneSome(kernel, min(pruneBatch, max(before-target, 1))) {
				return
			}
			time.Sleep(pruneWait)
			if p.a.nodes.Len() < before {
				vain = 0
			} else {
				vain++
			}
		}
		if p.a.nodes.Len() > target {
			time.Sleep(pruneRest)
		}
	}
}

// pruneSome makes the kernel drop up to limit nodes that have no others below them. It returns
// false if the kernel takes no notification.
func (p *pruner) pruneSome(kernel pruned, limit int) bool {
	some := p.a.nodes.Sample(limit, func(n *Node) bool { return n != p.a.root && n.leaf() })
	ids := make([]uint64, len(some))
	for i, n := range some {
		ids[i] = n.ID()
	}
	status := kernel.PruneNotify(ids)
	if status == fuse.ENOSYS {
		for _, n := range some {
			if at := n.place(); at.parent != nil && !at.unlinked {
				status = kernel.EntryNotify(at.parent.ID(), at.name)
			}
		}
	}
	switch status {
	case fuse.OK, fuse.ENOENT, fuse.Status(unix.ENOTEMPTY):
		return true
	}
	p.log.Debug("the kernel takes no notification to drop inodes", zap.Stringer("status", status))
	return false
}
