package main

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func parsed(t *testing.T, args ...string) *options {
	t.Helper()
	opts, err := parse(args, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	return opts
}

func TestParse(t *testing.T) {
	opts := parsed(t, "-peer", "rust=/opt/x -q", "-variant", "slow=timeout=0,writeback=0", "-run", "^warm", "-quick")
	if opts.rounds != 3 || !slices.Equal(opts.peers, []extra{{"rust", "/opt/x -q"}}) ||
		!slices.Equal(opts.variants, []extra{{"slow", "timeout=0,writeback=0"}}) {
		t.Errorf("parsed %+v", opts)
	}
	if opts.run.MatchString("cold find") || !opts.run.MatchString("warm find") {
		t.Error("-run does not select")
	}
	if opts := parsed(t); opts.rounds != 5 {
		t.Errorf("%d rounds", opts.rounds)
	}
	for _, args := range [][]string{{"-peer", "x"}, {"-variant", "x= "}, {"-peer", "=x"}, {"-run", "("}, {"-rounds", "-1"},
		{"-deep", "0"}, {"more"}} {
		if _, err := parse(args, io.Discard); err == nil {
			t.Errorf("%q was accepted", args)
		}
	}
}

// TestCandidates finds this program once for each way to mount it, and peers behind it.
func TestCandidates(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", t.TempDir())
	all, err := listCandidates(&options{program: self, candidates: parsed(t, "-candidates", "none").candidates,
		variants: []extra{{"wb", "writeback=1"}}, peers: []extra{{"rust", "/opt/x -q"}, {"near", "./x"}}})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, c := range all {
		got = append(got, c.name+"="+c.options)
	}
	if want := []string{"native=", "kernel=", "cached=", "passthrough=io=passthrough", "wb=writeback=1", "rust=", "near="}; !slices.Equal(got, want) {
		t.Errorf("candidates %q, want %q", got, want)
	}
	for i, want := range [][]string{{"/opt/x", "-q"}, {filepath.Join(here, "x")}} {
		if peer := all[len(all)-2+i]; peer.kind != other || !slices.Equal(peer.command, want) {
			t.Errorf("peer %+v, want %q", peer, want)
		}
	}
	if _, err := listCandidates(&options{program: self, candidates: parsed(t).candidates, variants: []extra{{"passthrough", "io=passthrough"}}}); err == nil {
		t.Error("two of one name are no error")
	}
	if _, err := listCandidates(parsed(t, "-program", "/nowhere")); err == nil {
		t.Error("a program that is not there is no error")
	}
	if _, err := listCandidates(parsed(t, "-program", "/nowhere", "-candidates", "kernel")); err != nil {
		t.Errorf("a program that is not there and not wanted: %v", err)
	}
}

// TestList looks at every workload: a name of its own, one way to be measured, and a place in the
// report.
func TestList(t *testing.T) {
	var full, quick bytes.Buffer
	for args, out := range map[string]*bytes.Buffer{"-quick=false": &full, "-quick": &quick} {
		if err := bench(context.Background(), parsed(t, "-list", args), out, os.Stderr); err != nil {
			t.Fatal(err)
		}
	}
	if strings.Contains(quick.String(), "go build") || !strings.Contains(full.String(), "go build") {
		t.Errorf("-quick lists\n%s, without it\n%s", &quick, &full)
	}
	seen := map[string]bool{}
	for _, w := range allWorkloads(parsed(t).sizes()) {
		if seen[w.name] || w.about == "" || w.layout == nil || !slices.Contains(groups, w.group) || (w.do == nil) == (w.gauge == nil) {
			t.Errorf("workload %q twice, or not complete", w.name)
		}
		if w.writes && (w.repeats > 0 || w.group == reads) {
			t.Errorf("%q changes what it is repeated on, or stands among those that read", w.name)
		}
		seen[w.name] = true
	}
}
