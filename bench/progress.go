package main

import (
	"fmt"
	"os"
	"strings"
)

// progress tells a person at a terminal how far it is; elsewhere it is silent.
type progress struct {
	out      *os.File
	terminal bool
}

func newProgress(out *os.File) *progress {
	info, err := out.Stat()
	return &progress{out: out, terminal: err == nil && info.Mode()&os.ModeCharDevice != 0}
}

func (p *progress) say(what string) {
	if p.terminal {
		fmt.Fprintf(p.out, "\r\x1b[K%s", what)
	}
}

func (p *progress) step(step, steps int, what string) {
	const width = 20
	bar := strings.Repeat("#", width*step/steps) + strings.Repeat(".", width-width*step/steps)
	p.say(fmt.Sprintf("[%s] %d/%d %s", bar, step, steps, what))
}

func (p *progress) done() { p.say("") }
