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

// mounted are the methods of *fs.Mount that signals use.
type mounted interface {
	Wait()
	Unmount() error
	HandOver()
	Cut() error
}

// attached is a mount that answers, with its counters and its log.
type attached struct {
	mount  mounted
	counts func() map[string]uint64
	close  func()
	log    *zap.Logger

	control     *controlled
	confinement *confinement // nil: there is no keeper
	supervised  *supervised  // nil: the mount ends with this process
}

// detachGrace is how long the clients of a busy mount have after a signal. They may finish their
// work, and the kernel writes back what they wrote. The mount is detached already.
const detachGrace = 2 * time.Second

// sameRequest is how long after a signal another one counts as the same: timeout(1) sends TERM to
// its child and then to the process group, and systemd sends HUP after TERM.
const sameRequest = 500 * time.Millisecond

// catchSignals is called early: a signal during the start must not leave a mount without a daemon.
func catchSignals() <-chan os.Signal {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGHUP, syscall.SIGINT, syscall.SIGTERM, syscall.SIGUSR1, syscall.SIGUSR2)
	// A line to a log without a reader must not end the process, which would leave a dead mount.
	signal.Ignore(syscall.SIGPIPE)
	return signals
}

// serveControlled is serve, after which the control socket is removed and the keeper ended.
func (a *attached) serveControlled(signals <-chan os.Signal) {
	a.serve(signals)
	a.supervised.end()
	a.control.close()
	a.confinement.close()
}

// serve returns when the mount is gone, or detachGrace after a signal.
func (a *attached) serve(signals <-chan os.Signal) {
	gone := make(chan struct{})
	go func() {
		a.mount.Wait()
		close(gone)
	}()
	var unmounting bool
	var first time.Time // when the first signal came
	unmounted := make(chan error, 1)
	var tooLate <-chan time.Time
	for {
		select {
		case <-gone:
			a.supervised.end() // before the descriptors are closed, which the supervisor has as well
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
			case syscall.SIGHUP:
				if a.supervised != nil && !unmounting {
					a.supervised.upgrade()
				}
			}
			if unmounting && time.Since(first) < sameRequest {
				continue
			}
			if unmounting {
				a.log.Warn("a second signal: users of the mount are cut off", zap.Stringer("signal", s))
				a.cut()
				return
			}
			a.log.Info("unmounting", zap.Stringer("signal", s))
			unmounting, first = true, time.Now()
			// Unmount lasts until all dirty data is written back.
			go func() { unmounted <- a.mount.Unmount() }()
		case err := <-unmounted:
			if err != nil {
				// An exit would leave a dead mount in the tree.
				a.log.Error("cannot unmount", zap.Error(err))
				unmounting = false
				continue
			}
			tooLate = time.After(detachGrace)
		case <-tooLate:
			a.log.Warn("unmounted, but still in use: its users are cut off")
			a.cut()
			return
		}
	}
}

func (a *attached) cut() {
	a.supervised.end()
	if err := a.mount.Cut(); err != nil {
		a.log.Error("cannot end the connection", zap.Error(err))
	}
}

// detach unmounts a mount that cannot be used, and ends the keeper.
func (a *attached) detach() {
	a.supervised.end()
	a.control.close()
	if err := a.mount.Unmount(); err != nil {
		a.log.Error("cannot unmount", zap.Error(err))
	}
	a.confinement.close()
}

// logCounts logs one line with a field for each kind of request that was served.
func (a *attached) logCounts() {
	counts := a.counts()
	var fields []zap.Field
	for _, opcode := range slices.Sorted(maps.Keys(counts)) {
		fields = append(fields, zap.Uint64(opcode, counts[opcode]))
	}
	a.log.Info("requests", fields...)
}
