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
	CPUIdleAuto  CPUIdle = iota // poll where that is known to pay and may be asked for
	CPUIdlePoll                 // poll
	CPUIdleSleep                // what they do otherwise
)

// fewCPUs is the largest machine that polls by itself: all of its idle CPUs do, for one caller and one daemon.
const fewCPUs = 8

// sleepReason returns why idle CPUs sleep; empty if they are to poll.
func (c CPUIdle) sleepReason() string {
	n := host.OnlineCPUs()
	switch {
	case c == CPUIdleSleep:
		return "cpu_idle=sleep"
	case c == CPUIdlePoll:
		return ""
	case !host.PollsWhileIdle():
		return "the hypervisor does not report dedicated CPUs (driver haltpoll)"
	case n == 0:
		return "the number of CPUs is unknown"
	case n > fewCPUs:
		return fmt.Sprintf("%d CPUs, at most %d poll by default", n, fewCPUs)
	}
	return ""
}

// idlePoll has the machine's idle CPUs poll while requests come fast. Half of what a request costs on virtual CPUs is to wake
// the one that the caller sleeps on (docs/PERFORMANCE.md).
type idlePoll struct {
	poll *host.IdlePoll // nil: idle CPUs sleep
	// sleepReason is why they do; empty with poll.
	sleepReason string
	log         *zap.Logger
}

// newIdlePoll opens the means; an error is for who has asked for it.
func newIdlePoll(c CPUIdle, log *zap.Logger) (idlePoll, error) {
	if why := c.sleepReason(); why != "" {
		return idlePoll{sleepReason: why}, nil
	}
	poll, err := host.OpenIdlePoll()
	if err != nil && c == CPUIdlePoll {
		return idlePoll{}, fmt.Errorf("cpu_idle=poll: %s: %w", host.IdlePollFile, err)
	}
	if err != nil {
		return idlePoll{sleepReason: fmt.Sprintf("%s: %v", host.IdlePollFile, err)}, nil
	}
	return idlePoll{poll: poll, log: log}, nil
}

// ask keeps idle CPUs awake, or no longer, and answers whether they are.
func (w *idlePoll) ask(awake bool) bool {
	if w.poll == nil {
		return false
	}
	set := w.poll.LetSleep
	if awake {
		set = w.poll.KeepAwake
	}
	if err := set(); err != nil {
		w.log.Warn("idle CPUs cannot be kept awake", zap.Error(err))
		return false
	}
	return awake
}

func (w *idlePoll) close() {
	if w.poll != nil {
		w.poll.Close()
	}
}
