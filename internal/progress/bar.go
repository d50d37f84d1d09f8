// Package progress shows on a terminal how far a command is, if it takes longer than a second.
package progress

import (
	"io"
	"sync/atomic"
	"time"

	"github.com/schollz/progressbar/v3"
)

// Unit is what a Bar counts.
type Unit int

// The units.
const (
	Objects Unit = iota
	Bytes
	Nothing // a wait, of which only the time is known
)

// Unknown is the total of work whose size is not known before its end.
const Unknown = -1

const (
	// delay is how long a command works before a bar is shown.
	delay = time.Second
	// period is the time between two updates.
	period = 100 * time.Millisecond
	// width is that of the bar itself, without the numbers beside it.
	width = 20
)

// Bar is one line at the end of a terminal. The methods of a nil Bar do nothing.
type Bar struct {
	out   io.Writer
	what  string
	unit  Unit
	total int64

	done  atomic.Int64
	texts chan []byte
	wrote chan result
	end   chan struct{} // closed by End
	ended chan struct{} // closed when the line is gone
}

// result is that of a Write.
type result struct {
	n   int
	err error
}

// Start begins to count. what is what is done, as "checking". total is how much there is to do,
// which may be Unknown. The caller calls End, and writes to the terminal by [Bar.Write] until then.
func Start(terminal io.Writer, what string, unit Unit, total int64) *Bar {
	b := &Bar{
		out: terminal, what: what, unit: unit, total: total,
		texts: make(chan []byte), wrote: make(chan result), end: make(chan struct{}), ended: make(chan struct{}),
	}
	go b.run()
	return b
}

// Add counts what has been done. Many goroutines may call it.
func (b *Bar) Add(n int) {
	if b != nil {
		b.done.Add(int64(n))
	}
}

// End removes the line. Further calls do nothing.
func (b *Bar) End() {
	if b == nil {
		return
	}
	select {
	case <-b.end:
	default:
		close(b.end)
	}
	<-b.ended
}

// Write writes whole lines above the bar.
func (b *Bar) Write(text []byte) (int, error) {
	select {
	case b.texts <- text:
		r := <-b.wrote
		return r.n, r.err
	case <-b.ended:
		return b.out.Write(text)
	}
}

// run owns the line. An error of the terminal ends no command.
func (b *Bar) run() {
	defer close(b.ended)
	first := time.NewTimer(delay)
	defer first.Stop()
	ticks := time.NewTicker(period)
	defer ticks.Stop()
	var bar *progressbar.ProgressBar // nil: not shown yet
	for {
		select {
		case <-first.C:
			bar = b.newBar()
		case <-ticks.C:
			b.show(bar)
		case text := <-b.texts:
			if bar != nil {
				_ = bar.Clear()
			}
			n, err := b.out.Write(text)
			b.wrote <- result{n, err}
			b.show(bar)
		case <-b.end:
			if bar != nil {
				_ = bar.Clear()
			}
			return
		}
	}
}

// show brings the line up to date.
func (b *Bar) show(bar *progressbar.ProgressBar) {
	switch {
	case bar == nil:
	case b.total > 0: // a bar at its end would vanish before the work is done
		_ = bar.Set64(min(b.done.Load(), b.total-1))
	case b.unit == Nothing:
		_ = bar.Add64(1) // which is not shown, but the time is
	default:
		_ = bar.Set64(b.done.Load())
	}
}

// newBar returns a bar without colours, in ASCII.
func (b *Bar) newBar() *progressbar.ProgressBar {
	options := []progressbar.Option{
		progressbar.OptionSetWriter(b.out), progressbar.OptionSetDescription(b.what), progressbar.OptionUseANSICodes(true),
		progressbar.OptionSetWidth(width), progressbar.OptionSetElapsedTime(true), progressbar.OptionSpinnerCustom([]string{"|", "/", "-", "\\"}),
		progressbar.OptionSetSpinnerChangeInterval(0), // this package is the one that updates the line
		progressbar.OptionSetTheme(progressbar.Theme{Saucer: "#", SaucerPadding: ".", BarStart: "[", BarEnd: "]"}),
	}
	switch b.unit {
	case Objects:
		options = append(options, progressbar.OptionShowCount(), progressbar.OptionShowTotalBytes(b.total > 0))
	case Bytes:
		options = append(options, progressbar.OptionShowCount(), progressbar.OptionShowTotalBytes(b.total > 0),
			progressbar.OptionShowBytes(true), progressbar.OptionUseIECUnits(true))
	}
	total := b.total
	if total <= 0 {
		total = Unknown
	}
	return progressbar.NewOptions64(total, options...)
}
