package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
)

// A layout is a set of lower layers, the topmost first, and their merged copy.
type layout struct {
	// home is where sessions on these layers have upper, work and mount point: on the same file
	// system.
	home string
	// dir holds the layers. Mount programs are started in it.
	dir string
	// layers are names in dir.
	layers []string
	merged string
	files  int
	bytes  int64
}

// layouts makes the layers of workloads, each for the first workload that needs it.
type layouts struct {
	dir, tree string
	sizes     sizes
	made      map[string]*layout
	failed    map[string]error
	// mounts are file systems on loop devices.
	mounts []string
	// described are lines for the report about what was made.
	described []string
	// stopped returns an error after an interrupt.
	stopped func() error
}

// errUnavailable is the error of a workload that this machine cannot run. It is left out.
var errUnavailable = errors.New("not available here")

func newLayouts(ctx context.Context, dir string, opts *options) *layouts {
	return &layouts{dir: dir, tree: opts.tree, sizes: opts.sizes(), made: map[string]*layout{}, failed: map[string]error{},
		stopped: ctx.Err}
}

// remember makes a layout the first time that it is needed. A layout that has failed is not tried
// again.
func (l *layouts) remember(name string, produce func() (*layout, error)) (*layout, error) {
	if made, ok := l.made[name]; ok {
		return made, nil
	}
	if err := l.failed[name]; err != nil {
		return nil, err
	}
	made, err := produce()
	if err != nil {
		l.failed[name] = err
		return nil, err
	}
	l.made[name] = made
	return made, nil
}

// once makes a layout of n layers and fills it. about is a line for the report, if it is not empty.
func (l *layouts) once(name, about string, layers int, fill func(*layout) error) (*layout, error) {
	return l.remember(name, func() (*layout, error) {
		made, err := newLayout(l.dir, name, layers)
		if err == nil {
			err = fill(made)
		}
		if err == nil && about != "" {
			l.described = append(l.described, fmt.Sprintf("%s: %d files, %d MiB, over %d layers", about, made.files, made.bytes>>20, layers))
		}
		return made, err
	})
}

func newLayout(home, name string, layers int) (*layout, error) {
	made := &layout{home: home, dir: filepath.Join(home, name)}
	made.merged = filepath.Join(made.dir, "merged")
	if err := os.MkdirAll(made.merged, 0o755); err != nil {
		return nil, err
	}
	for i := range layers {
		made.layers = append(made.layers, strconv.Itoa(i))
		if err := os.Mkdir(filepath.Join(made.dir, made.layers[i]), 0o755); err != nil {
			return nil, err
		}
	}
	return made, nil
}

// roots returns the directories that hold a file of layer i: that layer, and the merged copy.
func (l *layout) roots(i int) []string {
	return []string{filepath.Join(l.dir, l.layers[i%len(l.layers)]), l.merged}
}

// empty is one empty lower.
func (l *layouts) empty() (*layout, error) {
	return l.once("empty", "", 1, func(*layout) error { return nil })
}

// shallow is a real source tree. Its files are dealt out to the layers one by one, so every
// directory is merged.
func (l *layouts) shallow() (*layout, error) { return l.source("tree", l.sizes.layers) }

// many is shallow with many layers.
func (l *layouts) many() (*layout, error) { return l.source("deep", l.sizes.deep) }

func (l *layouts) source(name string, layers int) (*layout, error) {
	return l.once(name, l.tree, layers, func(made *layout) error {
		return made.deal(l.tree, "", l.sizes.every, nil)
	})
}

// archive is a tar of a part of the tree, to be unpacked.
func (l *layouts) archive() (string, error) {
	made, err := l.shallow()
	if err != nil {
		return "", err
	}
	path := filepath.Join(l.dir, "archive.tar")
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	return path, pack(made.merged, part, path)
}

const bigName = "big"

// big is one lower with one large file, on the file system of the other layouts.
func (l *layouts) big() (*layout, error) {
	return l.once("big", "", 1, func(made *layout) error { return made.fillBig(l.sizes.bulk) })
}

func (l *layout) fillBig(size int64) error {
	for _, root := range l.roots(0) {
		if err := writeFile(filepath.Join(root, bigName), size); err != nil {
			return err
		}
	}
	return nil
}

// numbered names the i-th of many files.
func numbered(i int) string { return fmt.Sprintf("file-%07d", i) }

// listing is the directory of listings: one with many entries, in one layer or dealt out to
// several.
const listing = "listing"

func (l *layouts) listed(layers int) (*layout, error) {
	return l.once(fmt.Sprint("listing", layers), "", layers, func(made *layout) error {
		return made.fillFlat(listing, l.sizes.entries)
	})
}

// fillFlat makes a directory of n empty files, dealt out to the layers in turn.
func (l *layout) fillFlat(dir string, count int) error {
	for _, root := range append([]string{l.merged}, l.paths()...) {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			return err
		}
	}
	for i := range count {
		for _, root := range l.roots(i) {
			if err := touch(filepath.Join(root, dir, numbered(i))); err != nil {
				return err
			}
		}
	}
	return nil
}

// paths are the layers' whole paths.
func (l *layout) paths() []string {
	var paths []string
	for _, name := range l.layers {
		paths = append(paths, filepath.Join(l.dir, name))
	}
	return paths
}

func touch(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	return f.Close()
}

// deal copies a tree, or each every-th file of it, below a name into the merged directory, and file
// by file into the layers in turn. It leaves out the directories named in leave.
func (l *layout) deal(tree, below string, every int, leave []string) error {
	seen := 0
	return filepath.WalkDir(tree, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(tree, path)
		if err != nil {
			return err
		}
		if entry.IsDir() {
			if slices.Contains(leave, entry.Name()) {
				return fs.SkipDir
			}
			return nil
		}
		if !entry.Type().IsRegular() && entry.Type() != fs.ModeSymlink {
			return nil
		}
		if seen++; seen%every != 0 {
			return nil
		}
		l.files++
		var n int64
		for _, root := range l.roots(l.files) {
			to := filepath.Join(root, below, name)
			if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
				return err
			}
			if n, err = copyEntry(path, to, entry); err != nil {
				return err
			}
		}
		l.bytes += n
		return nil
	})
}

// copyEntry copies a regular file or a symlink with its mode and time.
func copyEntry(from, to string, entry fs.DirEntry) (int64, error) {
	if entry.Type() == fs.ModeSymlink {
		target, err := os.Readlink(from)
		if err != nil {
			return 0, err
		}
		return 0, os.Symlink(target, to)
	}
	info, err := entry.Info()
	if err != nil {
		return 0, err
	}
	in, err := os.Open(from)
	if err != nil {
		return 0, err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, info.Mode().Perm())
	if err != nil {
		return 0, err
	}
	n, err := io.Copy(out, in)
	if closed := out.Close(); err == nil {
		err = closed
	}
	if err != nil {
		return n, err
	}
	return n, os.Chtimes(to, info.ModTime(), info.ModTime())
}

// writeFile writes a file of noise, one MiB at a time, and syncs it.
func writeFile(path string, size int64) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	block := noise()
	for written := int64(0); written < size && err == nil; written += int64(len(block)) {
		_, err = f.Write(block)
	}
	if err == nil {
		err = f.Sync()
	}
	if closed := f.Close(); err == nil {
		err = closed
	}
	return err
}

// streamPart is how many times the file of workload stream is smaller than the large file.
const streamPart = 4

// stream writes a new file in pieces as of a socket or a pipe, and does not sync it.
func stream(path string, size int64) error {
	const piece = 64 << 10
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	block := noise()[:piece]
	for written := int64(0); written < size && err == nil; written += piece {
		_, err = f.Write(block)
	}
	return errors.Join(err, f.Close())
}

// noise is one MiB that does not compress and is the same in every run.
func noise() []byte {
	block := make([]byte, 1<<20)
	for i, random := 0, rand.New(rand.NewPCG(1, 2)); i < len(block); i++ {
		block[i] = byte(random.Uint32())
	}
	return block
}
