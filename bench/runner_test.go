package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestRun builds the program and does two workloads for real; what is left is what was there
// before.
func TestRun(t *testing.T) {
	program := built(t)
	dir := t.TempDir()
	work, file := filepath.Join(dir, "work"), filepath.Join(dir, "out.json")
	if err := os.Mkdir(work, 0o755); err != nil {
		t.Fatal(err)
	}
	opts := parsed(t, "-quick", "-rounds", "2", "-tree", smallTree(t), "-layers", "2", "-program", program, "-dir", work,
		"-candidates", "^(native|kernel|cached|odd)$", "-variant", "odd=no-such-option", "-requests", "-run", "^(cold find|append)$", "-json", file)
	var out bytes.Buffer
	if err := bench(context.Background(), opts, &out, discard(t)); err != nil {
		t.Fatal(err)
	}
	r, err := readReport(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range r.LeftOut {
		if o.Candidate == base {
			t.Skip("no overlayfs of the kernel here: ", o.Why)
		}
	}
	if len(r.Results) != 2 || len(r.Candidates) != 3 || len(r.LeftOut) != 1 || r.LeftOut[0].Candidate != "odd" {
		t.Fatalf("report:\n%s", &out)
	}
	for _, result := range r.Results {
		f := result.figures("cached")
		if f == nil || len(f.Samples) != 2 || f.Median <= 0 || f.Ratio == nil || f.Requests.total() == 0 {
			t.Errorf("%s: %+v", result.Name, f)
		}
	}
	if n := count(t, work); n != 0 {
		t.Errorf("%d things are left behind", n)
	}
}

// After a failed candidate the run goes on and reports it. After an interrupt it stops.
func TestFailures(t *testing.T) {
	dir := t.TempDir()
	l := newLayouts(context.Background(), dir, parsed(t, "-quick"))
	r := &runner{dir: dir, layouts: l, candidates: []candidate{{name: "native"}, {name: "mounts", kind: other, command: []string{"false"}}},
		rounds: 2, progress: newProgress(discard(t))}
	fine := workload{name: "fine", layout: (*layouts).empty, do: func(context.Context, *task) error { return nil }}
	missing := fine
	missing.name, missing.needs = "missing", []string{"no-such-program"}
	results, err := r.measure(context.Background(), []workload{fine, missing})
	if err == nil || len(results) != 1 || len(results[0].Figures) != 1 || results[0].Figures[0].Candidate != "native" {
		t.Errorf("%v: %+v", err, results)
	}
	var left []string
	for _, o := range r.leftOut {
		left = append(left, o.String())
	}
	slices.Sort(left)
	if len(left) != 2 || !strings.HasPrefix(left[0], "fine on mounts: failed: ") || !strings.HasPrefix(left[1], "missing: not available here") {
		t.Errorf("left out: %q", left)
	}
	ctx, cancel := context.WithCancel(context.Background())
	stop := fine
	stop.do = func(context.Context, *task) error { cancel(); return nil }
	if _, err := r.measure(ctx, []workload{stop}); !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted: %v", err)
	}
}

// built is the program, if this machine can mount it and the kernel's overlayfs.
func built(t *testing.T) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("mounts need root")
	}
	if _, err := os.Stat("/dev/fuse"); err != nil {
		t.Skip(err)
	}
	program := filepath.Join(t.TempDir(), "fuse-overlay")
	build := exec.Command("go", "build", "-o", program, "../cmd/fuse-overlay")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v: %s", err, out)
	}
	return program
}

func discard(t *testing.T) *os.File {
	t.Helper()
	f, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}
