package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
)

// changeWorkloads make small changes.
func changeWorkloads(s sizes) []workload {
	remove := shell("rm -rf ./" + part)
	all := []workload{
		{name: "untar", about: "tar x of " + part, layout: (*layouts).packed, do: untar},
		{name: "rm upper", about: "rm -rf of what untar made", layout: (*layouts).packed, prepare: untar, do: remove},
		{name: "rm lower", about: "rm -rf of " + part + " in the lower layers", layout: (*layouts).shallow, do: remove},
		{name: "touch", about: "touch of every file of " + part + " in the lower layers: copy-up", layout: (*layouts).shallow,
			do: shell("find ./" + part + " -type f -exec touch -c {} +")},
		{name: "chown", about: "chown -R of " + part + " in the lower layers: copy-up", layout: (*layouts).shallow,
			full: true, do: chownAll},
	}
	for _, w := range all[len(all)-2:] {
		w.name += " (volatile)"
		w.about += "; all with volatile"
		w.options = map[kind]string{inKernel: "volatile", ours: "volatile", other: "volatile"}
		all = append(all, w)
	}
	metacopy := all[len(all)-3] // chown, durable
	metacopy.name += " (metacopy)"
	metacopy.about += ", without data; all with metacopy=on"
	metacopy.options, metacopy.without = map[kind]string{inKernel: "metacopy=on", ours: "metacopy=on"}, []kind{other}
	all = append(all, metacopy)
	appends := workload{name: "append", about: fmt.Sprintf("%d appends of 100 bytes", s.appends), layout: (*layouts).empty,
		do: func(_ context.Context, t *task) error { return appendSmall(t.root, s.appends) }}
	all = append(all, appends)
	appends.name += " (writeback)"
	appends.about += "; fuse-overlay with writeback=1"
	appends.options, appends.without = onlyOurs("writeback=1")
	all = append(all, appends)
	for i := range all {
		all[i].group, all[i].writes = changes, true
	}
	return append(all, copyUps(s)...)
}

// packed is one empty lower, with an archive to unpack over it.
func (l *layouts) packed() (*layout, error) {
	if _, err := l.archive(); err != nil {
		return nil, err
	}
	return l.empty()
}

// pack makes a tar of one subtree.
func pack(root, part, archive string) error {
	return run(context.Background(), root, "tar", "cf", archive, part)
}

func untar(ctx context.Context, t *task) error {
	archive, err := t.layouts.archive()
	if err != nil {
		return err
	}
	return run(ctx, t.root, "tar", "xf", archive)
}

// chownAll gives the tree to another user, or to root again if there is no other.
func chownAll(ctx context.Context, t *task) error {
	owner := "1:1"
	if inUserNamespace() {
		owner = "0:0"
	}
	return run(ctx, t.root, "chown", "-R", owner, part)
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

// copyUps change one byte of a large lower file, on a file system that copies data and on one that
// shares blocks.
func copyUps(s sizes) []workload {
	var all []workload
	for _, fileSystem := range []string{"", "xfs", "btrfs"} {
		w := workload{name: "copy-up", about: fmt.Sprintf("one byte of a lower file of %d MiB is written", s.bulk>>20), group: changes,
			layout: (*layouts).big, writes: true, without: []kind{plain}, do: writeByte}
		if fileSystem != "" {
			w.name += " on " + fileSystem
			w.about += ", on " + fileSystem + " with reflinks (a loop device)"
			w.layout = func(l *layouts) (*layout, error) { return l.reflinked(fileSystem) }
			w.full = true
		}
		all = append(all, w)
	}
	return all
}

// writeByte changes the first byte of the large file.
func writeByte(_ context.Context, t *task) error {
	f, err := os.OpenFile(filepath.Join(t.root, bigName), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt([]byte{'!'}, 0)
	if closed := f.Close(); err == nil {
		err = closed
	}
	return err
}
