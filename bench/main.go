// Command bench compares ways to have a merged tree: a plain directory, the kernel's overlayfs,
// fuse-overlay, and other overlay commands. Every candidate gets the same layers and does the same
// work in the same run, one after the other in each round, so a disturbance of the machine affects
// all of them. The result is the median of the rounds, and the ratio to the kernel's overlayfs.
//
// It drives built programs through mount points only, as root or inside a user namespace
// (-rootless), and does not look inside of any.
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
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	opts, err := parse(os.Args[1:], os.Stderr)
	if errors.Is(err, flag.ErrHelp) {
		os.Exit(0)
	}
	if err == nil {
		err = bench(ctx, opts, os.Stdout, os.Stderr)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		stop()
		os.Exit(1)
	}
}

// bench lists the workloads, shows a saved report, or measures, as the command line demands.
func bench(ctx context.Context, opts *options, out io.Writer, messages *os.File) error {
	switch {
	case opts.list:
		for _, w := range opts.workloads() {
			fmt.Fprintf(out, "%-37s %s\n", w.name, w.about)
		}
		return nil
	case len(opts.from) > 0:
		r, err := readReports(opts.from)
		if err != nil {
			return err
		}
		return r.publish(opts, out)
	case opts.rootless && !inUserNamespace():
		return reexecute(ctx, out, messages)
	default:
		return measure(ctx, opts, out, messages)
	}
}

// measure makes the layers, runs the workloads, and reports, also after an error or an interrupt.
func measure(ctx context.Context, opts *options, out io.Writer, messages *os.File) (err error) {
	// Mount programs are started in another directory.
	dir, err := filepath.Abs(opts.dir)
	if err != nil {
		return err
	}
	if dir, err = os.MkdirTemp(dir, "fuse-overlay-bench-"); err != nil {
		return err
	}
	l := newLayouts(ctx, dir, opts)
	defer func() { err = errors.Join(err, l.close(), os.RemoveAll(dir)) }()
	r := &runner{dir: dir, layouts: l, rounds: opts.rounds, requests: opts.requests, progress: newProgress(messages)}
	defer r.progress.done()
	if err := r.findCandidates(ctx, opts); err != nil {
		return err
	}
	workloads := opts.workloads()
	if len(workloads) == 0 || len(r.candidates) == 0 {
		return errors.New("nothing to measure: no workload or no candidate matches")
	}
	start := time.Now()
	report := &report{
		Date: start.UTC().Format(time.DateOnly), Machine: describeMachine(dir), Rounds: opts.rounds, Quick: opts.quick,
		Tools: toolVersions(workloads),
	}
	for _, c := range r.candidates {
		report.Candidates = append(report.Candidates, candidateInfo{c.name, c.version})
	}
	var broken error
	report.Results, broken = r.measure(ctx, workloads)
	report.Layers, report.LeftOut, report.Took = l.described, r.leftOut, time.Since(start)
	r.progress.done()
	if len(report.Results) == 0 && broken != nil {
		return broken
	}
	return errors.Join(report.publish(opts, out), broken)
}

// reexecute runs this program again as root of a user namespace with mounts of its own.
func reexecute(ctx context.Context, out io.Writer, messages *os.File) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	if self, err = filepath.EvalSymlinks(self); err != nil {
		return err
	}
	words := append([]string{"--user", "--map-root-user", "--mount", "--", self}, os.Args[1:]...)
	cmd := exec.CommandContext(ctx, "unshare", words...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, out, messages
	// It has to unmount before it ends.
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("unshare: %w", err)
	}
	return nil
}
