package readers

import "time"

const (
	// tick is how often the watchdog looks. Each look also keeps Go's own monitor awake, 40 µs of a
	// CPU in all.
	tick = time.Millisecond
	// calmTicks is after how many ticks without a request the watchdog sleeps, if requests do not
	// come fast. To wake it costs a request less than these looks.
	calmTicks = 2
	// busyReaders is how many readers at work make the watchdog add one although requests are being
	// taken. If many requests come at once for a layer that does not answer, other requests wait
	// until each of them has a reader.
	busyReaders = 8
	// stuckTicks is after how many ticks without an answer to any request the readers count as stuck.
	stuckTicks = 5
)

// watch adds a reader whenever none has waited for a whole tick, until the connection ends, and
// measures the pace. It sleeps while there is nothing to do.
func (p *Pool) watch() {
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	defer p.pace.set(false)
	p.pace.begin()
	for p.watchRequests(ticker.C) {
		ticker.Stop()
		select {
		case <-p.alarm:
		case <-p.done:
			return
		}
		ticker.Reset(tick)
	}
}

// watchRequests is the watchdog awake. It returns false at the end of the connection.
func (p *Pool) watchRequests(ticks <-chan time.Time) bool {
	answered, silent := p.answered.Load(), 0
	for last, quiet := p.served.Load(), 0; ; {
		select {
		case <-ticks:
		case <-p.done:
			return false
		}
		now := p.served.Load()
		p.pace.tick(now - last)
		limit := maxReaders
		if done := p.answered.Load(); done != answered {
			answered, silent = done, 0
		} else if silent++; silent >= stuckTicks {
			limit = maxStuckReaders
		}
		anyWaits := p.waiting.Load() > 0
		switch {
		case now != last:
			last, quiet = now, 0
			if !anyWaits && p.atWork() >= busyReaders {
				p.addReader(limit)
			}
		case !anyWaits:
			p.addReader(limit)
		default:
			quiet++
		}
		if quiet < calmTicks || p.pace.fast {
			continue
		}
		p.watching.Store(false)
		if p.served.Load() == last || !p.watching.CompareAndSwap(false, true) {
			return true
		}
		quiet = 0 // a request has come since, and its reader did not wake the watchdog
	}
}
