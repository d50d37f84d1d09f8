// Command bench compares ways to have a merged tree: a plain directory, the kernel's overlayfs, fuse-overlay, and other
// overlay commands. Every candidate gets the same layers and does the same work in the same run, one after the other
// within each round, so that what disturbs the machine disturbs all of them; what counts is the median of the rounds
// and the ratio to the kernel's overlayfs.
//
// It drives built programs through mount points only, as root or inside a user namespace (`unshare -Urm`), and does not
// look inside of any.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// options are the command line.
type options struct {
	program    string
	peers      []peer
	tree       string
	layers     int
	dir        string
	rounds     int
	run        *regexp.Regexp
	candidates *regexp.Regexp
	quick      bool
	list       bool
	json       string
	markdown   bool
}

// A peer is another overlay command: what it is called in the table, and the words of its command line before
// `-o OPTIONS MOUNTPOINT`.
type peer struct {
	name    string
	command []string
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	opts, err := parse(os.Args[1:], os.Stderr)
	if errors.Is(err, flag.ErrHelp) {
		os.Exit(0)
	}
	if err == nil {
		err = bench(ctx, opts)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		stop()
		os.Exit(1)
	}
}

func parse(args []string, usage io.Writer) (*options, error) {
	opts := &options{run: regexp.MustCompile(""), candidates: regexp.MustCompile("")}
	set := flag.NewFlagSet("bench", flag.ContinueOnError)
	set.SetOutput(usage)
	set.StringVar(&opts.program, "program", "bin/fuse-overlay", "the built fuse-overlay; empty leaves it out")
	set.Func("peer", "compare with a further `name=command`, called as: command -o OPTIONS MOUNTPOINT (repeatable)",
		func(s string) error {
			name, command, _ := strings.Cut(s, "=")
			words := strings.Fields(command)
			if name == "" || len(words) == 0 {
				return errors.New("want name=command")
			}
			opts.peers = append(opts.peers, peer{name, words})
			return nil
		})
	set.StringVar(&opts.tree, "tree", runtimeRoot(), "the `directory` whose files make the layers")
	set.IntVar(&opts.layers, "layers", 8, "how many layers the tree is split over")
	set.StringVar(&opts.dir, "dir", os.TempDir(), "the `directory` on whose file system everything happens")
	set.IntVar(&opts.rounds, "rounds", 0, "rounds; the median counts (default 5, 3 with -quick)")
	set.Func("run", "only the workloads that match `regexp`", regexpFlag(&opts.run))
	set.Func("candidates", "only the candidates that match `regexp`", regexpFlag(&opts.candidates))
	set.BoolVar(&opts.quick, "quick", false, "smaller workloads, three rounds: a few minutes")
	set.BoolVar(&opts.list, "list", false, "list the workloads")
	set.StringVar(&opts.json, "json", "", "also write every sample to `file`")
	set.BoolVar(&opts.markdown, "markdown", false, "print the table as Markdown")
	if err := set.Parse(args); err != nil {
		return nil, err
	}
	if set.NArg() > 0 {
		return nil, fmt.Errorf("unexpected argument %q", set.Arg(0))
	}
	if opts.rounds == 0 {
		opts.rounds = 5
		if opts.quick {
			opts.rounds = 3
		}
	}
	if opts.rounds < 1 || opts.layers < 1 {
		return nil, errors.New("-rounds and -layers want a positive number")
	}
	return opts, nil
}

func regexpFlag(to **regexp.Regexp) func(string) error {
	return func(s string) (err error) {
		*to, err = regexp.Compile(s)
		return err
	}
}

// runtimeRoot is the Go tree of this machine: 15,000 files that are the same everywhere.
func runtimeRoot() string {
	out, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return filepath.Clean(runtime.GOROOT()) //nolint:staticcheck // The next best guess where go is not on PATH.
	}
	return strings.TrimSpace(string(out))
}

// bench makes the layers, measures, and reports.
func bench(ctx context.Context, opts *options) error {
	sizes := fullSizes
	if opts.quick {
		sizes = quickSizes
	}
	var selected []workload
	for _, w := range workloads(sizes) {
		if opts.run.MatchString(w.name) {
			selected = append(selected, w)
		}
	}
	if opts.list {
		for _, w := range selected {
			fmt.Printf("%-16s %s\n", w.name, w.about)
		}
		return nil
	}
	dir, err := os.MkdirTemp(opts.dir, "fuse-overlay-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	candidates, err := findCandidates(opts)
	if err != nil {
		return err
	}
	if len(selected) == 0 || len(candidates) == 0 {
		return errors.New("nothing to measure: no workload or no candidate matches")
	}

	progress := newProgress(os.Stderr)
	progress.say("making the layers")
	layouts, err := makeLayouts(dir, opts.tree, opts.layers, sizes)
	if err != nil {
		return err
	}
	report := &report{
		Date: time.Now().UTC().Format(time.DateOnly), Machine: describeMachine(dir), Tree: layouts.describe(opts.tree),
		Rounds: opts.rounds, Quick: opts.quick,
	}
	for _, c := range candidates {
		report.Candidates = append(report.Candidates, candidateInfo{c.name, c.version})
	}
	r := &runner{dir: dir, layouts: layouts, candidates: candidates, rounds: opts.rounds, progress: progress}
	report.Results, err = r.measure(ctx, selected)
	progress.done()
	if err != nil {
		return err
	}
	if opts.json != "" {
		if err := report.writeJSON(opts.json); err != nil {
			return err
		}
	}
	return report.print(os.Stdout, opts.markdown)
}
