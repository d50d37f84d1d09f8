package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// onlyOurs gives options to this program alone. The others would be measured again without them.
func onlyOurs(options string) (map[kind]string, []kind) {
	return map[kind]string{ours: options}, []kind{other}
}

// walks are the workloads over a whole tree.
var walks = []struct{ name, about, script string }{
	{"find", "find -type f: names and types", "find . -type f >/dev/null"},
	{"stat", "find -printf: the attributes of every entry", `find . -printf '%p %i %m %U %G %s %T@ %n\n' >/dev/null`},
	{"ls", "ls -lR", "ls -lR . >/dev/null"},
	{"grep", "grep -r: every byte of every file", "grep -rF nowhere-to-be-found-here . || [ $? = 1 ]"},
	{"tar", "tar c | cat", "tar cf - . | cat >/dev/null"},
	{"2 greps", "two greps at once", "for i in 1 2; do grep -rF nowhere-to-be-found-here . & done; wait"},
}

// treeWorkloads read a source tree over a few layers.
func treeWorkloads(s sizes) []workload {
	var all []workload
	for _, w := range walkWorkloads(s, reads, "", (*layouts).shallow) {
		all = append(all, w)
		if strings.HasSuffix(w.name, " ls") {
			w.name += " (noxattrs)"
			w.about += "; fuse-overlay with noxattrs"
			w.options, w.without = onlyOurs("noxattrs")
			all = append(all, w)
		}
	}
	return all
}

// deepWorkloads do the same over many layers, and more that becomes slow with many layers.
func deepWorkloads(s sizes) []workload {
	suffix := fmt.Sprintf(", %d layers", s.deep)
	all := walkWorkloads(s, deep, suffix, (*layouts).many)
	for i := range all {
		// -quick has time for the most important one.
		all[i].full = all[i].name != "cold find"+suffix
	}
	return append(all,
		workload{name: missingNames + suffix, about: fmt.Sprintf("%d names that do not exist are looked up in a directory that lies in all layers", s.missing),
			group: deep, layout: (*layouts).everywhere, do: lookMissing(s.missing)},
		workload{name: "mount" + suffix, about: "until the root can be listed; then unmount", group: deep, layout: (*layouts).everywhere,
			without: []kind{plain}, sessions: 5, detached: true, gauge: mountAndUnmount("mount"+suffix, "unmount"+suffix)})
}

func walkWorkloads(s sizes, g group, suffix string, on func(*layouts) (*layout, error)) []workload {
	var all []workload
	for _, walk := range walks {
		do := shell(walk.script)
		all = append(all,
			workload{name: "cold " + walk.name + suffix, about: walk.about + ", on a fresh mount", group: g, layout: on, do: do},
			workload{name: "warm " + walk.name + suffix, about: walk.about + ", again", group: g, layout: on, do: do,
				// Twice: a first read may still change the access time.
				prepare: twice(do), repeats: s.repeats})
	}
	return all
}

// listingWorkloads are about one directory with very many entries.
func listingWorkloads(s sizes) []workload {
	var all []workload
	for _, layers := range []int{1, s.layers} {
		suffix := ""
		if layers > 1 {
			suffix = fmt.Sprintf(", %d layers", layers)
		}
		on := func(l *layouts) (*layout, error) { return l.listed(layers) }
		all = append(all,
			workload{name: "list large directory" + suffix, about: fmt.Sprintf("ls -f of %d entries, on a fresh mount", s.entries),
				group: reads, full: layers > 1, layout: on, do: shell("ls -f " + listing + " >/dev/null")},
			workload{name: "look up in large directory" + suffix, about: fmt.Sprintf("one of %d names, on a fresh mount", s.entries),
				group: reads, full: layers > 1, layout: on, sessions: 5, do: func(_ context.Context, t *task) error {
					_, err := os.Lstat(filepath.Join(t.root, listing, numbered(s.entries/2)))
					return err
				}})
	}
	return all
}

// everywhere is a directory that lies in each of many layers.
func (l *layouts) everywhere() (*layout, error) {
	return l.once("everywhere", "", l.sizes.deep, func(made *layout) error {
		return made.fillFlat(listing, l.sizes.deep)
	})
}

func lookMissing(count int) func(context.Context, *task) error {
	return func(_ context.Context, t *task) error {
		for i := range count {
			if _, err := os.Lstat(filepath.Join(t.root, listing, fmt.Sprint("missing-", i))); !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("a name that does not exist was found, or: %w", err)
			}
		}
		return nil
	}
}

func mountAndUnmount(mount, unmount string) func(context.Context, *task) ([]reading, error) {
	return func(ctx context.Context, t *task) ([]reading, error) {
		start := time.Now()
		if err := t.session.attach(ctx); err != nil {
			return nil, err
		}
		entries, err := os.ReadDir(t.session.root)
		if err != nil {
			return nil, err
		}
		mounted := time.Since(start)
		if !slices.ContainsFunc(entries, func(e fs.DirEntry) bool { return e.Name() == listing }) {
			return nil, errors.New("the mount does not show its layers")
		}
		start = time.Now()
		if err := t.session.unmount(); err != nil {
			return nil, err
		}
		return []reading{
			{mount, nanoseconds, float64(mounted)}, {unmount, nanoseconds, float64(time.Since(start))},
		}, nil
	}
}
