package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// sizes are what -quick makes smaller.
type sizes struct {
	// every is how much of the tree is taken: each file, or each tenth.
	every   int
	bulk    int64
	appends int
	repeats int
}

var (
	fullSizes  = sizes{every: 1, bulk: 256 << 20, appends: 50_000, repeats: 5}
	quickSizes = sizes{every: 10, bulk: 64 << 20, appends: 10_000, repeats: 3}
)

// part is the subtree that is unpacked, removed and copied up.
const part = "src"

// A workload is one thing that users do.
type workload struct {
	name, about string
	layout      func(*layouts) *layout
	writes      bool
	// repeats is how often it is timed in one session, the median counting. Only for what changes nothing.
	repeats int
	// prepare is done before, not timed; nil is nothing.
	prepare func(context.Context, *task) error
	do      func(context.Context, *task) error
}

// A task is what a workload works on.
type task struct {
	root    string
	layouts *layouts
}

func onTree(l *layouts) *layout  { return &l.tree }
func onEmpty(l *layouts) *layout { return &l.empty }
func onBig(l *layouts) *layout   { return &l.big }

// workloads lists all of them, in the order of the table.
func workloads(s sizes) []workload {
	var all []workload
	for _, c := range []struct{ name, about, script string }{
		{"find", "find -type f: names and types", "find . -type f >/dev/null"},
		{"stat", "find -printf: the attributes of every entry", `find . -printf '%p %i %m %U %G %s %T@ %n\n' >/dev/null`},
		{"ls", "ls -lR", "ls -lR . >/dev/null"},
		{"grep", "grep -r: every byte of every file", "grep -rF nowhere-to-be-found-here . || [ $? = 1 ]"},
		{"tar", "tar c | cat", "tar cf - . | cat >/dev/null"},
		{"2 greps", "two greps at once", "for i in 1 2; do grep -rF nowhere-to-be-found-here . & done; wait"},
	} {
		do := shell(c.script)
		all = append(all,
			workload{name: "cold " + c.name, about: c.about + ", on a fresh mount", layout: onTree, do: do},
			workload{name: "warm " + c.name, about: c.about + ", again", layout: onTree, do: do,
				// Twice: a first read may still change the access time.
				prepare: twice(do), repeats: s.repeats})
	}
	return append(all, changes(s)...)
}

// changes are the workloads that write, and those on one large file.
func changes(s sizes) []workload {
	untar := func(ctx context.Context, t *task) error { return run(ctx, t.root, "tar", "xf", t.layouts.archive) }
	remove := shell("rm -rf ./" + part)
	return []workload{
		{name: "untar", about: "tar x of " + part, layout: onEmpty, writes: true, do: untar},
		{name: "rm upper", about: "rm -rf of what untar made", layout: onEmpty, writes: true, prepare: untar, do: remove},
		{name: "rm lower", about: "rm -rf of " + part + " in the lower layers", layout: onTree, writes: true, do: remove},
		{name: "touch", about: "touch of every file of " + part + " in the lower layers: copy-up", layout: onTree,
			writes: true, do: shell("find ./" + part + " -type f -exec touch -c {} +")},
		{name: "append", about: fmt.Sprintf("%d appends of 100 bytes", s.appends), layout: onEmpty, writes: true,
			do: func(_ context.Context, t *task) error { return appendSmall(t.root, s.appends) }},
		{name: "write", about: fmt.Sprintf("%d MiB written and synced", s.bulk>>20), layout: onEmpty, writes: true,
			do: func(_ context.Context, t *task) error { return writeFile(filepath.Join(t.root, bigName), s.bulk) }},
		{name: "cold read", about: fmt.Sprintf("%d MiB read, on a fresh mount", s.bulk>>20), layout: onBig, do: readBig},
		{name: "warm read", about: fmt.Sprintf("%d MiB read again", s.bulk>>20), layout: onBig,
			prepare: twice(readBig), do: readBig, repeats: s.repeats},
	}
}

func shell(script string) func(context.Context, *task) error {
	return func(ctx context.Context, t *task) error { return run(ctx, t.root, "sh", "-c", script) }
}

func twice(do func(context.Context, *task) error) func(context.Context, *task) error {
	return func(ctx context.Context, t *task) error {
		if err := do(ctx, t); err != nil {
			return err
		}
		return do(ctx, t)
	}
}

// pack makes a tar of one subtree.
func pack(root, part, archive string) error {
	return run(context.Background(), root, "tar", "cf", archive, part)
}

func appendSmall(root string, count int) error {
	f, err := os.OpenFile(filepath.Join(root, "log"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	line := noise()[:100]
	for i := 0; i < count && err == nil; i++ {
		_, err = f.Write(line)
	}
	if closed := f.Close(); err == nil {
		err = closed
	}
	return err
}

// readBig reads as cat does: 128 KiB at a time. The hidden struct keeps io from finding a shorter way.
func readBig(_ context.Context, t *task) error {
	f, err := os.Open(filepath.Join(t.root, bigName))
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{f}, make([]byte, 128<<10))
	return err
}
