package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// smallTree is a source tree of four files in three directories.
func smallTree(t *testing.T) string {
	t.Helper()
	tree := t.TempDir()
	for _, name := range []string{"a", "src/b", "src/c", "left/out"} {
		path := filepath.Join(tree, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(name), 0o640); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, time.Unix(1e9, 0), time.Unix(1e9, 0)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("a", filepath.Join(tree, "link")); err != nil {
		t.Fatal(err)
	}
	return tree
}

// TestDeal splits a small tree: each file is in one layer and in the merged copy, with its mode and
// time.
func TestDeal(t *testing.T) {
	l, err := newLayout(t.TempDir(), "tree", 2)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.deal(smallTree(t), "below", 1, []string{"left"}); err != nil {
		t.Fatal(err)
	}
	if l.files != 4 || l.bytes != 11 {
		t.Errorf("%d files, %d bytes", l.files, l.bytes)
	}
	for _, name := range []string{"a", "src/b", "src/c", "link"} {
		found := 0
		for _, root := range l.paths() {
			if _, err := os.Lstat(filepath.Join(root, "below", name)); err == nil {
				found++
			}
		}
		info, err := os.Lstat(filepath.Join(l.merged, "below", name))
		if found != 1 || err != nil {
			t.Errorf("%s is in %d layers, and in the merged copy: %v", name, found, err)
		} else if info.Mode().IsRegular() && (info.Mode().Perm() != 0o640 || info.ModTime().Unix() != 1e9) {
			t.Errorf("%s: mode %v, time %v", name, info.Mode(), info.ModTime())
		}
	}
	if _, err := os.Lstat(filepath.Join(l.merged, "below", "left")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what is to be passed over is there: %v", err)
	}
}

func count(t *testing.T, dir string) int {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// TestLayouts makes the small ones: nothing before it is wanted, and nothing twice.
func TestLayouts(t *testing.T) {
	dir := t.TempDir()
	opts := parsed(t, "-quick", "-layers", "2", "-deep", "3", "-tree", smallTree(t))
	l := newLayouts(context.Background(), dir, opts)
	l.sizes.every, l.sizes.entries, l.sizes.inodes, l.sizes.bulk = 1, 10, 1500, 1<<20
	if count(t, dir) != 0 {
		t.Error("layers are made before they are wanted")
	}
	shallow, err := l.shallow()
	if err != nil {
		t.Fatal(err)
	}
	if again, err := l.shallow(); again != shallow || err != nil {
		t.Errorf("made twice: %v", err)
	}
	if len(l.described) != 1 || !strings.Contains(l.described[0], "5 files, 0 MiB, over 2 layers") {
		t.Errorf("described as %q", l.described)
	}
	listed, err := l.listed(2)
	if err != nil {
		t.Fatal(err)
	}
	for root, want := range map[string]int{listed.merged: 10, listed.paths()[0]: 5, listed.paths()[1]: 5} {
		if n := count(t, filepath.Join(root, listing)); n != want {
			t.Errorf("%s has %d entries, want %d", root, n, want)
		}
	}
	crowd, err := l.crowd()
	if err != nil {
		t.Fatal(err)
	}
	if count(t, crowd.paths()[0]) != 2 || count(t, filepath.Join(crowd.paths()[0], "dir-0001")) != 500 {
		t.Error("a crowd is not as large as wanted")
	}
	big, err := l.big()
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(filepath.Join(big.merged, bigName)); err != nil || info.Size() != 1<<20 {
		t.Errorf("large file: %v", err)
	}
	if _, err := l.goTree(); !errors.Is(err, errUnavailable) {
		t.Errorf("a tree without a compiler: %v", err)
	}
	if archive, err := l.archive(); err != nil {
		t.Errorf("%s: %v", archive, err)
	}
	if err := l.close(); err != nil {
		t.Error(err)
	}
}

// TestJournal leaves the database and no journal.
func TestJournal(t *testing.T) {
	dir := t.TempDir()
	if err := journal(dir, 3); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(filepath.Join(dir, "db")); err != nil || info.Size() != databasePages*pageSize || count(t, dir) != 1 {
		t.Errorf("database: %v; %d files", err, count(t, dir))
	}
}

func TestFioTime(t *testing.T) {
	const text = `{"jobs": [{"read": {"total_ios": 0, "lat_ns": {"mean": 0}},
		"write": {"total_ios": 4, "lat_ns": {"mean": 1000.5}}, "sync": {"total_ios": 3, "lat_ns": {"mean": 2000}}}]}`
	if took, err := fioTime([]byte(text)); err != nil || took != 10002 {
		t.Errorf("%v, %v", took, err)
	}
	for _, text := range []string{"", "{}", `{"jobs": [{}]}`} {
		if _, err := fioTime([]byte(text)); err == nil {
			t.Errorf("%q was accepted", text)
		}
	}
}
