package main

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestMedianAndRatio(t *testing.T) {
	if got := median([]int{5, 1, 3}); got != 3 {
		t.Errorf("median is %d", got)
	}
	got := ratio([]time.Duration{10, 30, 20}, []time.Duration{10, 10, 10})
	if want := (spread{Median: 2, Min: 1, Max: 3}); *got != want {
		t.Errorf("ratio is %+v, want %+v", *got, want)
	}
}

func TestParse(t *testing.T) {
	opts, err := parse([]string{"-peer", "rust=/opt/x -q", "-run", "^warm", "-quick"}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if opts.rounds != 3 || len(opts.peers) != 1 || opts.peers[0].name != "rust" || len(opts.peers[0].command) != 2 {
		t.Errorf("parsed %+v", opts)
	}
	if opts.run.MatchString("cold find") || !opts.run.MatchString("warm find") {
		t.Error("-run does not select")
	}
	for _, args := range [][]string{{"-peer", "x"}, {"-run", "("}, {"-rounds", "-1"}, {"more"}} {
		if _, err := parse(args, io.Discard); err == nil {
			t.Errorf("%q was accepted", args)
		}
	}
}

// TestDeal splits a small tree: each file is in one layer and in the merged copy, with its mode and time.
func TestDeal(t *testing.T) {
	tree := t.TempDir()
	for _, name := range []string{"a", "d/b", "d/c"} {
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
	l, err := newLayout(t.TempDir(), 2)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.deal(tree, 1); err != nil {
		t.Fatal(err)
	}
	if l.files != 4 || l.bytes != 7 {
		t.Errorf("%d files, %d bytes", l.files, l.bytes)
	}
	for _, name := range []string{"a", "d/b", "d/c", "link"} {
		found := 0
		for _, root := range l.layers {
			if _, err := os.Lstat(filepath.Join(root, name)); err == nil {
				found++
			}
		}
		info, err := os.Lstat(filepath.Join(l.merged, name))
		if found != 1 || err != nil {
			t.Errorf("%s is in %d layers, and in the merged copy: %v", name, found, err)
		} else if info.Mode().IsRegular() && (info.Mode().Perm() != 0o640 || info.ModTime().Unix() != 1e9) {
			t.Errorf("%s: mode %v, time %v", name, info.Mode(), info.ModTime())
		}
	}
}

func TestTable(t *testing.T) {
	candidates := []candidate{{name: base}, {name: "other"}}
	samples := map[string][]time.Duration{base: {time.Second}, "other": {1500 * time.Millisecond}}
	r := report{
		Candidates: []candidateInfo{{base, "1"}, {"other", "2"}},
		Results:    []result{newResult(workload{name: "find"}, candidates, samples)},
	}
	for _, markdown := range []bool{false, true} {
		var out bytes.Buffer
		if err := r.print(&out, markdown); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(out.String(), "1.50 s [1.50 (1.50 to 1.50)]") {
			t.Errorf("table:\n%s", out.String())
		}
	}
}
