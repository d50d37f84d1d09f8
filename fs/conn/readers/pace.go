package readers

// pace reports when requests begin to come fast, one soon after the other, and when they no longer
// do. The watchdog alone uses it.
type pace struct {
	changed func(fast bool)
	fast    bool
	slow    int // ticks in a row with fewer than fastRequests
}

const (
	// fastRequests is how many requests in a tick are fast: wake-ups are then a large part of what
	// each of them costs.
	fastRequests = 4
	// slowTicks is after how many ticks with fewer requests they are no longer fast. A caller that
	// does something else for some milliseconds is still a fast one.
	slowTicks = 10
	// firstTicks is slowTicks at the start: the mount is used soon, and its first requests find all
	// CPUs asleep.
	firstTicks = 50
)

// begin expects requests.
func (p *pace) begin() {
	p.slow = slowTicks - firstTicks
	p.set(true)
}

// tick takes how many requests have come since the last tick.
func (p *pace) tick(requests uint64) {
	switch {
	case requests >= fastRequests:
		p.slow = 0
		p.set(true)
	case p.fast:
		if p.slow++; p.slow >= slowTicks {
			p.set(false)
		}
	}
}

func (p *pace) set(fast bool) {
	if fast != p.fast && p.changed != nil {
		p.changed(fast)
	}
	p.fast = fast
}
