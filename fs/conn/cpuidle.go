package conn

import (
	"fmt"

	"go.uber.org/zap"

	"github.com/fuse-overlay/fuse-overlay/internal/host"
)

// CPUIdle is what idle CPUs do while requests come fast.
type CPUIdle int

// The values of option cpu_idle.
const (
	CPUIdleAuto  CPUIdle = iota // poll if that is known to be faster and the process may request it
	CPUIdlePoll                 // poll
	CPUIdleSleep                // what they do otherwise
)

// maxPollingCPUs is the largest machine that polls without an option: all of its idle CPUs poll,
// for one caller and one daemon.
const maxPollingCPUs = 8

// polls reports whether idle CPUs are to poll, and why.
func (c CPUIdle) polls() (polls bool, reason string) {
	cpus := host.OnlineCPUs()
	switch {
	case c == CPUIdlePoll:
		return true, "cpu_idle=poll"
	case c == CPUIdleSleep:
		return false, "cpu_idle=sleep"
	case !host.PollsWhileIdle():
		return false, "the hypervisor does not report dedicated CPUs (driver haltpoll)"
	case cpus <= 0:
		return false, "the number of CPUs is unknown"
	case cpus > maxPollingCPUs:
		return false, fmt.Sprintf("%d CPUs, at most %d poll by default", cpus, maxPollingCPUs)
	}
	return true, fmt.Sprintf("haltpoll, %d CPUs", cpus)
}

// idlePoll makes the machine's idle CPUs poll while requests come fast. On virtual CPUs half of the
// time of a request is the wake-up of the CPU that the caller sleeps on
// (docs/design/cpu-latency.md).
type idlePoll struct {
	poll     *host.IdlePoll // nil: idle CPUs sleep
	decision string         // for the log
	log      *zap.Logger
}

// newIdlePoll opens what the request for polling needs. It fails with [CPUIdlePoll] only.
func newIdlePoll(c CPUIdle, log *zap.Logger) (idlePoll, error) {
	polls, reason := c.polls()
	if !polls {
		return idlePoll{decision: "sleep: " + reason}, nil
	}
	poll, err := host.OpenIdlePoll()
	switch {
	case err == nil:
		return idlePoll{poll: poll, decision: "poll while requests come fast: " + reason, log: log}, nil
	case c == CPUIdlePoll:
		return idlePoll{}, fmt.Errorf("cpu_idle=poll: %s: %w", host.IdlePollFile, err)
	}
	return idlePoll{decision: fmt.Sprintf("sleep: %s: %v", host.IdlePollFile, err)}, nil
}

// request keeps idle CPUs awake if requests come fast. It returns whether they stay awake.
func (w *idlePoll) request(fast bool) (awake bool) {
	if w.poll == nil {
		return false
	}
	set := w.poll.LetSleep
	if fast {
		set = w.poll.KeepAwake
	}
	if err := set(); err != nil {
		w.log.Warn("idle CPUs cannot be kept awake", zap.Error(err))
		return false
	}
	return fast
}

func (w *idlePoll) close() {
	if w.poll != nil {
		w.poll.Close()
	}
}
