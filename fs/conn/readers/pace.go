package readers

// A pace tells somebody when requests begin to come fast, one soon after the other, and when they no longer do. The watchdog
// alone uses it.
type pace struct {
	tell func(fast bool)
	fast bool
	slow int // ticks in a row with fewer requests than that
}

const (
	// fastRequests are as many requests in a tick as make waking up a large part of what each of them costs.
	fastRequests = 4
	// slowTicks is how many ticks with fewer requests end it: a caller that now and then does something else for some
	// milliseconds is still a fast one.
	slowTicks = 10
	// firstTicks is the same in the beginning: who mounts will use the mount soon, and its first requests find everything asleep.
	firstTicks = 50
)

// begin says that requests are expected.
func (p *pace) begin() {
	p.slow = slowTicks - firstTicks
	p.set(true)
}

// tick notes how many requests have come since the last one.
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
	if fast != p.fast && p.tell != nil {
		p.tell(fast)
	}
	p.fast = fast
}
