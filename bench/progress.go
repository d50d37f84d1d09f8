package main

import (
	"fmt"
	"os"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

// progress shows a bar at a terminal, and prints lines everywhere.
type progress struct {
	out *os.File
	bar *progressbar.ProgressBar
}

func newProgress(out *os.File) *progress { return &progress{out: out} }

// begin starts a bar of n steps.
func (p *progress) begin(steps int) {
	if !term.IsTerminal(int(p.out.Fd())) {
		return
	}
	p.bar = progressbar.NewOptions(steps, progressbar.OptionSetWriter(p.out), progressbar.OptionShowCount(),
		progressbar.OptionSetWidth(20), progressbar.OptionSetPredictTime(true), progressbar.OptionClearOnFinish(),
		progressbar.OptionThrottle(50*time.Millisecond), progressbar.OptionShowDescriptionAtLineEnd(),
		progressbar.OptionUseANSICodes(true))
}

// step shows what begins, and advances the bar by the steps since the last.
func (p *progress) step(done int, what string) {
	if p.bar == nil {
		return
	}
	p.bar.Describe(what)
	// An error of the bar does not end the run.
	_ = p.bar.Add(done)
}

// printf prints a line.
func (p *progress) printf(format string, args ...any) {
	if p.bar != nil {
		_ = p.bar.Clear()
	}
	fmt.Fprintf(p.out, "bench: "+format+"\n", args...)
}

// done removes the bar.
func (p *progress) done() {
	if p.bar != nil {
		_ = p.bar.Finish()
		p.bar = nil
	}
}
