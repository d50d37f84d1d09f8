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
	// pruneDirs is how many directories one notification names with what is in them.
	pruneDirs = 4
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

// Estimates of what the daemon holds, in bytes (docs/PERFORMANCE.md).
const (
	bytesPerNode = 256
	bytesPerName = 100 // in a name table, with its index
)

// pruner keeps the table of nodes near its bounds. The kernel holds the nodes, so the pruner makes
// it drop inodes that no process uses: by FUSE_NOTIFY_PRUNE (Linux 6.18), before by invalidating
// their names. The kernel answers with FORGETs.
type pruner struct {
	a      *access
	inodes int   // the bound of nodes; 0: none
	memory int64 // the bound of nodes and name tables, in bytes; 0: none
	log    *zap.Logger
	wakes  chan struct{}
}

func newPruner(a *access, cfg Config) pruner {
	return pruner{a: a, inodes: cfg.CacheInodes, memory: cfg.CacheMemory, log: cfg.Log, wakes: make(chan struct{}, 1)}
}

func (p *pruner) bounded() bool { return p.inodes > 0 || p.memory > 0 }

// exceeds returns how many nodes are to go, if a share of n/16 of the bounds is wanted.
func (p *pruner) exceeds(n int) int {
	nodes, most := p.a.nodes.Len(), 0
	if p.inodes > 0 {
		most = nodes - p.inodes/16*n - p.inodes%16*n/16
	}
	if p.memory > 0 {
		used := int64(nodes)*bytesPerNode + p.a.listed.Load()*bytesPerName
		most = max(most, int((used-p.memory/16*int64(n))/(bytesPerNode+bytesPerName)))
	}
	return max(most, 0)
}

// wake wakes the pruner if there is more than the bounds. It may be called with locks held.
func (p *pruner) wake() {
	if p.bounded() && p.exceeds(16) > 0 {
		select {
		case p.wakes <- struct{}{}:
		default:
		}
	}
}

// run prunes until done is closed, or until the kernel takes no notification.
func (p *pruner) run(kernel pruned, done <-chan struct{}) {
	const target = 15 // somewhat below the bounds, so that not every new node begins it again
	for {
		select {
		case <-done:
			return
		case <-p.wakes:
		}
		for vain := 0; vain < pruneTurns && p.exceeds(target) > 0; {
			before := p.a.nodes.Len()
			if !p.pruneSome(kernel, min(pruneBatch, p.exceeds(target)+1)) {
				return
			}
			time.Sleep(pruneWait)
			if p.a.nodes.Len() < before {
				vain = 0
			} else {
				vain++
			}
		}
		if p.exceeds(target) > 0 {
			time.Sleep(pruneRest)
		}
	}
}

// sample returns nodes that have no others below them. If memory is bounded, it takes whole
// directories, the directory last: its name table goes with it.
func (p *pruner) sample(limit int) (some []*Node) {
	if p.memory > 0 {
		for _, d := range p.a.nodes.Sample(pruneDirs, func(n *Node) bool { return n != p.a.root && n.dir != nil }) {
			some = append(append(some, p.a.leavesOf(d)...), d)
			if len(some) >= limit {
				return some
			}
		}
	}
	return append(some, p.a.nodes.Sample(limit-len(some), func(n *Node) bool { return n != p.a.root && n.leaf() })...)
}

// leavesOf returns the nodes in a directory that have no others below them; none if another request
// uses the directory.
func (a *access) leavesOf(d *Node) (some []*Node) {
	if !d.dir.mu.TryLock() {
		return nil
	}
	defer d.dir.mu.Unlock()
	for _, n := range d.dir.children {
		if !a.nodes.Dropped(n) && n.leaf() {
			some = append(some, n)
		}
	}
	return some
}

// pruneSome makes the kernel drop up to limit nodes that have no others below them. It returns
// false if the kernel takes no notification.
func (p *pruner) pruneSome(kernel pruned, limit int) bool {
	some := p.sample(limit)
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
