package main

import (
	"errors"
	"os"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
)

// fakeMount is a mount whose clients leave it some time after it was unmounted.
type fakeMount struct {
	gone       chan struct{}
	unmountErr error
	writeBack  time.Duration // how long Unmount takes
	leave      time.Duration // negative is never
	unmounts   atomic.Int32
	asked      atomic.Int32 // to hand over
}

func (m *fakeMount) Wait() { <-m.gone }

func (m *fakeMount) HandOver() { m.asked.Add(1) }

func (m *fakeMount) Cut() error { return nil }

func (m *fakeMount) Unmount() error {
	times := m.unmounts.Add(1)
	time.Sleep(m.writeBack)
	if m.unmountErr != nil {
		return m.unmountErr
	}
	if m.leave >= 0 && times == 1 {
		time.AfterFunc(m.leave, func() { close(m.gone) })
	}
	return nil
}

// serveFake serves while signals arrive, one a second, and returns what happened.
func serveFake(m *fakeMount, signals ...os.Signal) (took time.Duration, closed bool, logs *observer.ObservedLogs) {
	m.gone = make(chan struct{})
	core, logs := observer.New(zapcore.InfoLevel)
	a := &attached{
		mount:  m,
		counts: func() map[string]uint64 { return map[string]uint64{"READ": 7, "GETATTR": 3, "LOOKUP": 5} },
		close:  func() { closed = true },
		log:    zap.New(core),
	}
	arriving := make(chan os.Signal)
	go func() {
		for _, s := range signals {
			time.Sleep(time.Second)
			if s == syscall.Signal(0) { // another process unmounts
				close(m.gone)
				return
			}
			arriving <- s
		}
	}()
	start := time.Now()
	a.serve(arriving)
	took = time.Since(start)
	time.Sleep(m.writeBack)
	if m.leave < 0 {
		close(m.gone) // let the waiting goroutine end with the test
	}
	return took, closed, logs
}

func TestServe(t *testing.T) {
	const unmountedByOthers = syscall.Signal(0)
	for _, tt := range []struct {
		name     string
		mount    *fakeMount
		signals  []os.Signal
		took     time.Duration
		unmounts int32
		closed   bool
	}{
		{"TERM", &fakeMount{}, []os.Signal{syscall.SIGTERM}, 1 * time.Second, 1, true},
		{"INT", &fakeMount{}, []os.Signal{syscall.SIGINT}, 1 * time.Second, 1, true},
		{"HUP", &fakeMount{}, []os.Signal{syscall.SIGHUP}, 1 * time.Second, 1, true},
		{"gone by itself", &fakeMount{}, []os.Signal{unmountedByOthers}, 1 * time.Second, 0, true},
		{"statistics end nothing", &fakeMount{}, []os.Signal{syscall.SIGUSR1, syscall.SIGUSR1, unmountedByOthers}, 3 * time.Second, 0, true},
		{"busy, users leave", &fakeMount{leave: time.Second}, []os.Signal{syscall.SIGTERM}, 2 * time.Second, 1, true},
		{"busy, users stay", &fakeMount{leave: -1}, []os.Signal{syscall.SIGTERM}, time.Second + detachGrace, 1, false},
		{"busy, second signal", &fakeMount{leave: -1}, []os.Signal{syscall.SIGTERM, syscall.SIGINT}, 2 * time.Second, 1, false},
		{"much to write back", &fakeMount{writeBack: time.Minute}, []os.Signal{syscall.SIGTERM}, time.Second + time.Minute, 1, true},
		{"much to write back, second signal", &fakeMount{writeBack: time.Minute}, []os.Signal{syscall.SIGTERM, syscall.SIGTERM}, 2 * time.Second, 1, false},
		{"cannot unmount, goes on serving", &fakeMount{unmountErr: errors.New("no")}, []os.Signal{syscall.SIGTERM, unmountedByOthers}, 2 * time.Second, 1, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				took, closed, _ := serveFake(tt.mount, tt.signals...)
				unmounts := tt.mount.unmounts.Load()
				if took != tt.took || unmounts != tt.unmounts || closed != tt.closed {
					t.Errorf("took %v, %d unmounts, closed %v; want %v, %d, %v",
						took, unmounts, closed, tt.took, tt.unmounts, tt.closed)
				}
			})
		})
	}
}

// timeout(1) sends TERM to its child and at once to the process group. The clients of the mount
// have their time nevertheless.
func TestOneRequestOfTwoSignals(t *testing.T) {
	for _, tt := range []struct{ apart, took time.Duration }{
		{0, detachGrace},
		{sameRequest - time.Millisecond, detachGrace},
		{sameRequest, sameRequest},
	} {
		synctest.Test(t, func(t *testing.T) {
			m := &fakeMount{leave: -1, gone: make(chan struct{})}
			a := &attached{mount: m, close: func() {}, log: zap.NewNop()}
			arriving := make(chan os.Signal)
			go func() {
				arriving <- syscall.SIGTERM
				time.Sleep(tt.apart)
				arriving <- syscall.SIGTERM
			}()
			start := time.Now()
			a.serve(arriving)
			if took := time.Since(start); took != tt.took {
				t.Errorf("signals %v apart: took %v, want %v", tt.apart, took, tt.took)
			}
			close(m.gone)
		})
	}
}

func TestStatistics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, _, logs := serveFake(&fakeMount{}, syscall.SIGUSR1, syscall.SIGTERM)
		lines := logs.FilterMessage("requests").All()
		if len(lines) != 1 {
			t.Fatalf("%d lines", len(lines))
		}
		want := []zap.Field{zap.Uint64("GETATTR", 3), zap.Uint64("LOOKUP", 5), zap.Uint64("READ", 7)}
		if got := lines[0].Context; len(got) != 3 || got[0] != want[0] || got[1] != want[1] || got[2] != want[2] {
			t.Errorf("got %v, want %v", got, want)
		}
	})
}
