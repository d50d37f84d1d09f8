package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
)

// options are the command line.
type options struct {
	program         string
	peers, variants []extra
	tree            string
	layers, deep    int
	dir             string
	rounds          int
	run, candidates *regexp.Regexp
	quick, list     bool
	rootless        bool
	requests        bool
	json, charts    string
	from            []string
	markdown        bool
}

// An extra is a candidate from the command line. It has a name for the table, and either the
// command line before `-o OPTIONS MOUNTPOINT` (-peer) or mount options of this program (-variant).
type extra struct {
	name, value string
}

func parse(args []string, usage io.Writer) (*options, error) {
	opts := &options{run: regexp.MustCompile(""), candidates: regexp.MustCompile("")}
	set := flag.NewFlagSet("bench", flag.ContinueOnError)
	set.SetOutput(usage)
	set.StringVar(&opts.program, "program", "bin/fuse-overlay", "the built fuse-overlay; empty leaves it out")
	set.Func("peer", "compare with a further `name=command`, called as: command -o OPTIONS MOUNTPOINT (repeatable)",
		extraFlag(&opts.peers))
	set.Func("variant", "compare with fuse-overlay under other mount options, `name=options` (repeatable)",
		extraFlag(&opts.variants))
	set.StringVar(&opts.tree, "tree", runtimeRoot(), "the `directory` whose files make the layers")
	set.IntVar(&opts.layers, "layers", 8, "how many layers the tree is split over")
	set.IntVar(&opts.deep, "deep", 128, "the same for the workloads on many layers")
	set.StringVar(&opts.dir, "dir", os.TempDir(), "the `directory` on whose file system everything happens")
	set.IntVar(&opts.rounds, "rounds", 0, "rounds; the median counts (default 5, 3 with -quick)")
	set.Func("run", "only the workloads that match `regexp`", regexpFlag(&opts.run))
	set.Func("candidates", "only the candidates that match `regexp`", regexpFlag(&opts.candidates))
	set.Func("from", "measure nothing, show what -json has written to `file` (repeatable: one report of several runs)",
		func(s string) error {
			opts.from = append(opts.from, s)
			return nil
		})
	set.BoolVar(&opts.quick, "quick", false, "fewer and smaller workloads, three rounds: two minutes")
	set.BoolVar(&opts.list, "list", false, "list the workloads")
	set.StringVar(&opts.json, "json", "", "also write every sample to `file`")
	set.StringVar(&opts.charts, "charts", "", "also draw charts (SVG) into `directory`")
	set.BoolVar(&opts.rootless, "rootless", false, "run as root of a new user namespace")
	set.BoolVar(&opts.requests, "requests", false, "also count the requests that fuse-overlay serves")

	set.BoolVar(&opts.markdown, "markdown", false, "print the tables as Markdown")
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
	if opts.rounds < 1 || opts.layers < 1 || opts.deep < 1 {
		return nil, errors.New("-rounds, -layers and -deep want a positive number")
	}
	return opts, nil
}

func extraFlag(to *[]extra) func(string) error {
	return func(s string) error {
		name, value, _ := strings.Cut(s, "=")
		if name == "" || strings.TrimSpace(value) == "" {
			return errors.New("a name, = and a value are wanted")
		}
		*to = append(*to, extra{name, value})
		return nil
	}
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

// sizes are those of the run.
func (o *options) sizes() sizes {
	s := fullSizes
	if o.quick {
		s = quickSizes
	}
	s.layers, s.deep = o.layers, o.deep
	return s
}

// workloads are those that the command line selects.
func (o *options) workloads() []workload {
	var selected []workload
	for _, w := range allWorkloads(o.sizes()) {
		if o.run.MatchString(w.name) && !(o.quick && w.full) {
			selected = append(selected, w)
		}
	}
	return selected
}
