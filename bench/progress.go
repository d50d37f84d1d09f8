package main

import (
	"fmt"
	"os"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

// progress tells a person at a terminal how far it is. Elsewhere there is no bar, only what is said.
type progress struct {
	out *os.File
	bar *progressbar.ProgressBar
}

func newProgress(out *os.File) *progress { return &progress{out: out} }

// begin starts a bar of so many steps.
func (p *progress) begin(steps int) {
	if !term.IsTerminal(int(p.out.Fd())) {
		return
	}
	p.bar = progressbar.NewOptions(steps, progressbar.OptionSetWriter(p.out), progressbar.OptionShowCount(),
		progressbar.OptionSetWidth(20), progressbar.OptionSetPredictTime(true), progressbar.OptionClearOnFinish(),
		progressbar.OptionThrottle(50*time.Millisecond), progressbar.OptionShowDescriptionAtLineEnd(),
		progressbar.OptionUseANSICodes(true))
}

// step says what begins; so many steps are done since the last.
func (p *progress) step(done int, what string) {
	if p.bar == nil {
		return
	}
	p.bar.Describe(what)
	// A bar that cannot be drawn is no reason to stop.
	_ = p.bar.Add(done)
}

// say prints a line.
func (p *progress) say(format string, args ...any) {
	if p.bar != nil {
		_ = p.bar.Clear()
	}
	fmt.Fprintf(p.out, "bench: "+format+"\n", args...)
}

// done takes the bar away.
func (p *progress) done() {
	if p.bar != nil {
		_ = p.bar.Finish()
		p.bar = nil
	}
}
