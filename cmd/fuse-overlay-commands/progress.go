package main

import (
	"io"

	"github.com/spf13/cobra"

	"github.com/fuse-overlay/fuse-overlay/internal/progress"
)

// startBar shows on stderr how far a command is, if that is a terminal; else the bar is nil. The
// command writes to its stderr above the bar until end, which may be called more than once.
func startBar(c *cobra.Command, what string, unit progress.Unit, total int64) (bar *progress.Bar, end func()) {
	terminal := c.ErrOrStderr()
	if !obeysEscapes(terminal) {
		return nil, func() {}
	}
	bar = progress.Start(terminal, what, unit, total)
	c.SetErr(bar)
	return bar, func() {
		bar.End()
		c.SetErr(terminal)
	}
}

// countedReader counts the bytes that are read.
type countedReader struct {
	io.Reader
	bar *progress.Bar
}

func (r *countedReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	r.bar.Add(n)
	return n, err
}

// countedWriter counts the bytes that are written.
type countedWriter struct {
	io.Writer
	bar *progress.Bar
}

func (w *countedWriter) Write(p []byte) (int, error) {
	n, err := w.Writer.Write(p)
	w.bar.Add(n)
	return n, err
}
