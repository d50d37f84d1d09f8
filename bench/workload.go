package main

import (
	"context"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"time"
)

// sizes are what -quick makes smaller.
type sizes struct {
	// layers and deep are how many layers the tree is split over.
	layers, deep int
	// every is how much of the tree is used: each every-th file.
	every int
	// bulk and random are the bytes of the large file, and of the part with random access.
	bulk, random int64
	// synced is how many random writes are followed by an fsync each.
	synced int
	// appends, missing, entries, starts, transactions, inodes and containers are how many of them
	// there are.
	appends, missing, entries, starts, transactions, inodes, containers int
	// repeats is how often a warm workload is timed in a session.
	repeats int
}

var (
	fullSizes = sizes{every: 1, bulk: 1 << 30, random: 256 << 20, synced: 1000, appends: 50_000, missing: 20_000,
		entries: 100_000, starts: 50, transactions: 200, inodes: 1_000_000, containers: 20, repeats: 5}
	quickSizes = sizes{every: 40, bulk: 64 << 20, random: 16 << 20, synced: 100, appends: 5_000, missing: 5_000,
		entries: 10_000, starts: 3, transactions: 20, inodes: 20_000, containers: 5, repeats: 3}
)

// part is the subtree that is unpacked, removed and copied up.
const part = "src"

// A group of workloads is one table and one chart.
type group string

const (
	reads      group = "Reading"
	deep       group = "Many layers"
	changes    group = "Changing"
	bulk       group = "Bulk data and programs"
	containers group = "Containers"
	weights    group = "Memory"
)

// groups lists them in the order of the report.
var groups = []group{reads, deep, changes, bulk, containers, weights}

// A unit is what a figure counts.
type unit string

const (
	nanoseconds unit = "ns"
	bytesUnit   unit = "bytes"
)

// A reading is one figure of one session.
type reading struct {
	name  string
	unit  unit
	value float64
}

// A workload is one thing that users do with a tree.
type workload struct {
	name, about string
	group       group
	layout      func(*layouts) (*layout, error)
	writes      bool
	// full: it is not part of -quick.
	full bool
	// repeats is how often it is timed in one session, for the median; 0 is once. Only for
	// workloads that change nothing.
	repeats int
	// sessions is how many sessions it has in each round, for the median; 0 is one. For very short
	// workloads.
	sessions int
	// rounds is the most rounds that it has, for workloads that count; 0 is no limit.
	rounds int
	// without are the kinds of candidates on which it has no meaning.
	without []kind
	// options are mount options for each kind of candidate that has them.
	options map[kind]string
	// needs are the programs that it runs.
	needs []string
	// detached: gauge mounts and unmounts by itself.
	detached bool
	// prepare is called before and is not timed; nil is nothing.
	prepare func(context.Context, *task) error
	// do is timed.
	do func(context.Context, *task) error
	// gauge, in place of do, takes its own readings.
	gauge func(context.Context, *task) ([]reading, error)
}

// A task is the tree of a workload, and what it needs besides.
type task struct {
	root    string
	layouts *layouts
	session *session
}

// allWorkloads lists all of them, in the order of the report.
func allWorkloads(s sizes) []workload {
	return slices.Concat(treeWorkloads(s), listingWorkloads(s), deepWorkloads(s), changeWorkloads(s), bulkWorkloads(s),
		toolWorkloads(s), compareWorkloads(), containerWorkloads(s), memoryWorkloads(s))
}

// missing returns the program that a workload needs and the machine does not have. Empty: none.
func (w *workload) missing() error {
	for _, name := range w.needs {
		if _, err := exec.LookPath(name); err != nil {
			return fmt.Errorf("%w: %w", errUnavailable, err)
		}
	}
	return nil
}

// skips reports whether a workload leaves out a kind of candidates.
func (w *workload) skips(k kind) bool { return slices.Contains(w.without, k) }

func shell(script string) func(context.Context, *task) error {
	return func(ctx context.Context, t *task) error { return run(ctx, t.root, "sh", "-c", script) }
}

// elapsed returns the time that do takes.
func elapsed(do func() error) (time.Duration, error) {
	start := time.Now()
	err := do()
	return time.Since(start), err
}

func twice(do func(context.Context, *task) error) func(context.Context, *task) error {
	return func(ctx context.Context, t *task) error {
		if err := do(ctx, t); err != nil {
			return err
		}
		return do(ctx, t)
	}
}

// toolVersions returns the first line of --version of each program that the workloads run.
func toolVersions(workloads []workload) []string {
	var versions, seen []string
	for _, w := range workloads {
		for _, name := range w.needs {
			if slices.Contains(seen, name) {
				continue
			}
			seen = append(seen, name)
			if v := programVersion([]string{name}); v != "?" {
				versions = append(versions, fmt.Sprintf("%s: %s", name, strings.TrimPrefix(v, name+" ")))
			}
		}
	}
	return versions
}
