package main

import (
	"maps"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"time"

	"go.uber.org/zap"
)

// mounted is the part of *fs.Mount that is needed here.
type mounted interface {
	Wait()
	Unmount() error
	HandOver()
	Cut() error
}

// attached is a mount that answers, and what belongs to it.
type attached struct {
	mount  mounted
	counts func() map[string]uint64
	close  func()
	log    *zap.Logger
}

// parting is how long users of a busy mount have, after a signal, to finish and the kernel to write back what they
// wrote: the mount has left the tree by then, and the process that was told to go must go some time.
const parting = 2 * time.Second

// sameRequest is how long after a signal another one is part of the same request: timeout(1) sends TERM to its child and then
// to the process group, and systemd sends HUP after TERM.
const sameRequest = 500 * time.Millisecond

// catchSignals begins early: a signal that arrives while the mount comes up must not leave it behind.
func catchSignals() <-chan os.Signal {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGHUP, syscall.SIGINT, syscall.SIGTERM, syscall.SIGUSR1, syscall.SIGUSR2)
	// A line to a log that nobody reads any more must not end the process and leave a dead mount behind.
	signal.Ignore(syscall.SIGPIPE)
	return signals
}

// serve returns when the mount is gone, or its users had their time to go after a signal.
func (a *attached) serve(signals <-chan os.Signal) {
	gone := make(chan struct{})
	go func() {
		a.mount.Wait()
		close(gone)
	}()
	var unmounting bool
	var asked time.Time // when the first signal came
	unmounted := make(chan error, 1)
	var tooLate <-chan time.Time
	for {
		select {
		case <-gone:
			a.close()
			return
		case s := <-signals:
			switch s {
			case syscall.SIGUSR1:
				a.logCounts()
				continue
			case syscall.SIGUSR2: // another mount requests the upper
				go a.mount.HandOver()
				continue
			}
			if unmounting && time.Since(asked) < sameRequest {
				continue
			}
			if unmounting {
				a.log.Warn("a second signal: users of the mount are cut off", zap.Stringer("signal", s))
				a.cut()
				return
			}
			a.log.Info("unmounting", zap.Stringer("signal", s))
			unmounting, asked = true, time.Now()
			// Not waited for here: it lasts as long as there is data to write back.
			go func() { unmounted <- a.mount.Unmount() }()
		case err := <-unmounted:
			if err != nil {
				// To go now would leave a dead mount in the tree.
				a.log.Error("cannot unmount", zap.Error(err))
				unmounting = false
				continue
			}
			tooLate = time.After(parting)
		case <-tooLate:
			a.log.Warn("unmounted, but still in use: its users are cut off")
			a.cut()
			return
		}
	}
}

func (a *attached) cut() {
	if err := a.mount.Cut(); err != nil {
		a.log.Error("cannot end the connection", zap.Error(err))
	}
}

// detach is for when the mount is up but cannot be kept.
func (a *attached) detach() {
	if err := a.mount.Unmount(); err != nil {
		a.log.Error("cannot unmount", zap.Error(err))
	}
}

// logCounts writes one line with a field for each kind of request there was.
func (a *attached) logCounts() {
	counts := a.counts()
	var fields []zap.Field
	for _, opcode := range slices.Sorted(maps.Keys(counts)) {
		fields = append(fields, zap.Uint64(opcode, counts[opcode]))
	}
	a.log.Info("requests", fields...)
}
