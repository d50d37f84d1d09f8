package readers

import (
	"time"

	"golang.org/x/sys/unix"
)

const (
	// spinTime is how long a reader looks for the next request before it blocks. It is longer than a
	// caller takes from a reply to its next request, even if the caller alternates between two mounts
	// (podman compares trees so).
	spinTime = 100 * time.Microsecond
	// shortSpinTime is spinTime while idle CPUs stay awake: a wake-up takes little then.
	shortSpinTime = 20 * time.Microsecond
	// maxVainSpins is after how many spins in vain readers block at once, until requests come fast
	// again.
	maxVainSpins = 4
	// firstWait, waitGrowth and maxWait are how long a reader blocks in one system call. A collection
	// of garbage can miss a thread that enters a system call while the world is being stopped, up to
	// Go 1.26 at least. reentersyscall checks for a stop before it marks the thread as in a system
	// call, and stopTheWorldWithSema looks once and later skips all threads in system calls. Then
	// the world waits until the call returns or sysmon wakes, after a minute. If the next request
	// depends on the reply to this one, it does not come. A call that returns soon ends that, so the
	// first one is short. Long ones begin when the daemon has had nothing to do for long, and so
	// no reason for a collection.
	firstWait  = time.Millisecond
	waitGrowth = 8
	maxWait    = 10 * time.Second
)

type reader struct {
	pool   *Pool
	worker Worker
	wake   chan struct{}
}

func (r *reader) run() {
	p := r.pool
	defer p.all.Done()
	defer r.worker.Release()
	for {
		n, err := r.next()
		if err != nil {
			p.end(err)
			return
		}
		if n == 0 { // the other readers are enough
			return
		}
		p.waiting.Add(-1)
		p.served.Add(1)
		if !p.watching.Load() && p.watching.CompareAndSwap(false, true) {
			p.alarm <- struct{}{}
		}
		r.worker.Serve(n)
		p.answered.Add(1)
		p.waiting.Add(1)
	}
}

// next takes the next request. 0 without an error ends this reader only.
func (r *reader) next() (int, error) {
	p := r.pool
	buf := r.worker.Buffer()
	start := time.Now()
	for looks := 0; ; looks++ {
		n, err := p.device.TryRead(buf)
		if err != unix.EAGAIN {
			if looks > 0 && err == nil {
				p.vainSpins.Store(0)
			}
			return n, err
		}
		if p.useIdleTime() {
			continue
		}
		if p.vainSpins.Load() < maxVainSpins && time.Since(start) < p.spinTime() {
			p.yield()
			continue
		}
		if p.stopWaiting() {
			if !p.rest(r) {
				return 0, nil
			}
		} else {
			p.vainSpins.Add(1)
			if err := r.block(); err != nil {
				return 0, err
			}
			if time.Since(start) < p.spinTime() { // a longer spin would have found the request
				p.vainSpins.Store(0)
			}
		}
		start, looks = time.Now(), -1
	}
}

// spinTime is how long a reader spins now.
func (p *Pool) spinTime() time.Duration {
	switch {
	case p.noSpin:
		return 0
	case p.awake.Load():
		return shortSpinTime
	}
	return spinTime
}

// useIdleTime does what there is to do between two requests. The reader does not count as waiting
// meanwhile, so the watchdog sees if that takes long.
func (p *Pool) useIdleTime() (done bool) {
	if p.onIdle == nil {
		return false
	}
	p.waiting.Add(-1)
	done = p.onIdle()
	p.waiting.Add(1)
	return done
}

// block returns when there may be a request.
func (r *reader) block() error {
	for limit := firstWait; ; limit = min(limit*waitGrowth, maxWait) {
		if ready, err := r.pool.device.Wait(limit); ready || err != nil {
			return err
		}
	}
}

// stopWaiting takes a reader from the waiting ones, unless it is the last one.
func (p *Pool) stopWaiting() bool {
	for {
		n := p.waiting.Load()
		if n <= 1 {
			return false
		}
		if p.waiting.CompareAndSwap(n, n-1) {
			return true
		}
	}
}

// rest makes r idle until addReader wakes it. It returns false if r is to end: there are maxIdle
// idle readers already, or the connection has ended.
func (p *Pool) rest(r *reader) bool {
	p.mu.Lock()
	if p.ended || len(p.idle) >= maxIdle {
		p.running--
		p.mu.Unlock()
		return false
	}
	p.idle = append(p.idle, r)
	p.mu.Unlock()
	select {
	case <-r.wake:
		return true
	case <-p.done:
		return false
	}
}
