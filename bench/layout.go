package main

import (
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
)

// A layout is a set of lower layers, the topmost first, and what they look like merged.
type layout struct {
	layers []string
	merged string
	files  int
	bytes  int64
}

// layouts are the lowers that workloads are done on.
type layouts struct {
	// tree is a real source tree, its files dealt out to the layers one by one, so that every directory is merged.
	tree layout
	// empty is one empty lower.
	empty layout
	// big is one lower with one large file.
	big layout
	// archive is a tar of a part of tree, to be unpacked.
	archive string
}

const bigName = "big"

func makeLayouts(dir, tree string, count int, sizes sizes) (*layouts, error) {
	l := &layouts{archive: filepath.Join(dir, "archive.tar")}
	var err error
	if l.tree, err = newLayout(filepath.Join(dir, "tree"), count); err != nil {
		return nil, err
	}
	if err := l.tree.deal(tree, sizes.every); err != nil {
		return nil, fmt.Errorf("%s: %w", tree, err)
	}
	if l.empty, err = newLayout(filepath.Join(dir, "empty"), 1); err != nil {
		return nil, err
	}
	if l.big, err = newLayout(filepath.Join(dir, "big"), 1); err != nil {
		return nil, err
	}
	for _, root := range []string{l.big.layers[0], l.big.merged} {
		if err := writeFile(filepath.Join(root, bigName), sizes.bulk); err != nil {
			return nil, err
		}
	}
	l.big.files, l.big.bytes = 1, sizes.bulk
	return l, pack(l.tree.merged, part, l.archive)
}

func newLayout(dir string, count int) (layout, error) {
	l := layout{merged: filepath.Join(dir, "merged")}
	for i := range count {
		l.layers = append(l.layers, filepath.Join(dir, fmt.Sprintf("layer%d", i)))
	}
	for _, root := range append([]string{l.merged}, l.layers...) {
		if err := os.MkdirAll(root, 0o755); err != nil {
			return layout{}, err
		}
	}
	return l, nil
}

// deal copies a tree, or of each so many files one, into the merged directory, and file by file into the layers in turn.
func (l *layout) deal(tree string, every int) error {
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
			return os.MkdirAll(filepath.Join(l.merged, name), 0o755)
		}
		if !entry.Type().IsRegular() && entry.Type() != fs.ModeSymlink {
			return nil
		}
		if seen++; seen%every != 0 {
			return nil
		}
		l.files++
		layer := l.layers[l.files%len(l.layers)]
		if err := os.MkdirAll(filepath.Join(layer, filepath.Dir(name)), 0o755); err != nil {
			return err
		}
		for _, root := range []string{l.merged, layer} {
			n, err := copyEntry(path, filepath.Join(root, name), entry)
			if err != nil {
				return err
			}
			if root == layer {
				l.bytes += n
			}
		}
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

// noise is one MiB that does not compress and is the same in every run.
func noise() []byte {
	block := make([]byte, 1<<20)
	for i, random := 0, rand.New(rand.NewPCG(1, 2)); i < len(block); i++ {
		block[i] = byte(random.Uint32())
	}
	return block
}

func (l *layouts) describe(tree string) string {
	return fmt.Sprintf("%s: %d files, %d MiB, over %d layers", tree, l.tree.files, l.tree.bytes>>20, len(l.tree.layers))
}
