package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// perDirectory is how many files each directory of the large tree has.
const perDirectory = 1000

// memoryWorkloads are about how large a daemon grows.
func memoryWorkloads(s sizes) []workload {
	about := fmt.Sprintf("of the daemon before and after a find of %d inodes, and the growth by inode (RSS; PSS besides)", s.inodes)
	w := workload{name: "memory", about: about, group: weights, layout: (*layouts).crowd, rounds: 3,
		without: []kind{plain, inKernel}, gauge: weigh("memory", s.inodes)}
	bounded := w
	bounded.name += " (cache_inodes=50000)"
	bounded.about += "; fuse-overlay with cache_inodes=50000"
	bounded.options, bounded.without = map[kind]string{ours: "cache_inodes=50000"}, []kind{plain, inKernel, other}
	bounded.gauge = weigh(bounded.name, s.inodes)
	bounded.full = true
	return []workload{w, bounded}
}

// crowd is a tree of very many empty files in one layer.
func (l *layouts) crowd() (*layout, error) {
	return l.once("crowd", "", 1, func(made *layout) error {
		// With one layer there is no merged copy.
		root := made.paths()[0]
		for i := range l.sizes.inodes {
			dir := filepath.Join(root, fmt.Sprintf("dir-%04d", i/perDirectory))
			if i%perDirectory == 0 {
				if err := l.stopped(); err != nil {
					return err
				}
				if err := os.Mkdir(dir, 0o755); err != nil {
					return err
				}
			}
			if err := touch(filepath.Join(dir, numbered(i))); err != nil {
				return err
			}
		}
		return nil
	})
}

// weigh measures the daemon's memory before and after a walk over every inode.
func weigh(name string, inodes int) func(context.Context, *task) ([]reading, error) {
	walk := shell(`find . -printf '%s\n' >/dev/null`)
	return func(ctx context.Context, t *task) ([]reading, error) {
		before, err := t.session.weight()
		if err != nil {
			return nil, err
		}
		if err := walk(ctx, t); err != nil {
			return nil, err
		}
		// Wait for batches of FORGET, and for memory that is returned to the kernel.
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(time.Second):
		}
		after, err := t.session.weight()
		if err != nil {
			return nil, err
		}
		return []reading{
			{name + ": RSS before", bytesUnit, before.rss},
			{name + ": RSS after", bytesUnit, after.rss},
			{name + ": PSS after", bytesUnit, after.pss},
			{name + ": growth by inode", bytesUnit, (after.rss - before.rss) / float64(inodes)},
		}, nil
	}
}

// A weight is a daemon's memory in bytes: resident, and proportional for pages that it shares with
// other processes.
type weight struct{ rss, pss float64 }

// weight adds up the memory of the processes that serve the mount.
func (s *session) weight() (weight, error) {
	var sum weight
	pids := s.daemons()
	if len(pids) == 0 {
		return sum, fmt.Errorf("no process has %s on its command line", s.root)
	}
	for _, pid := range pids {
		file := fmt.Sprintf("/proc/%d/smaps_rollup", pid)
		for key, to := range map[string]*float64{"Rss": &sum.rss, "Pss": &sum.pss} {
			var kib int64
			if _, err := fmt.Sscanf(field(file, key), "%d kB", &kib); err != nil {
				return sum, fmt.Errorf("%s: %s: %w", file, key, err)
			}
			*to += float64(kib << 10)
		}
	}
	return sum, nil
}
