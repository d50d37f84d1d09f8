// Package readers decides who waits for the next request of a FUSE connection, and how.
//
// What a request costs is mostly waking a sleeping thread on another CPU, twice: 15 µs each where CPUs are virtual, against
// 2 µs of work. So whoever has answered looks for the next request a little longer before it sleeps, giving way to
// others that want its CPU, and one reader alone is at the door as a rule: a second one that waits there would be woken
// for nothing by each request. It is joined by another before something that takes long, and by a watchdog when it does not
// come back.
package readers

import (
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/lock"
)

// Device is where requests come from. internal/host.Device is one.
type Device interface {
	// TryRead takes a request; EAGAIN when there is none. Any other error ends the pool.
	TryRead(buf []byte) (int, error)
	// Wait returns when there may be a request, or when TryRead has an error to tell: then ready is true; or after limit.
	Wait(limit time.Duration) (ready bool, err error)
}

// Worker serves requests, one at a time.
type Worker interface {
	// Buffer is where the next request goes.
	Buffer() []byte
	// Serve answers the request in the first n bytes of Buffer.
	Serve(n int)
}

const (
	// patience is how long a reader looks for the next request before it sleeps: longer than a caller takes from an
	// answer to its next request, also one that goes to and fro between two mounts (podman compares trees so), shorter
	// than anybody minds the CPU for.
	patience = 100 * time.Microsecond
	// shortPatience is that where idle CPUs stay awake: waking up takes little then, and the CPU is soon somebody else's.
	shortPatience = 20 * time.Microsecond
	// discouraged is after how many vain looks in a row a reader sleeps at once, until requests come fast again.
	discouraged = 4
	// tick is how often the watchdog looks, and calm after how many idle looks it sleeps as well, once requests do not come fast any
	// more: each look keeps Go's own monitor awake too, 40 µs of a CPU in all, and to be woken costs a request less than that.
	tick = time.Millisecond
	calm = 2
	// shortest, growth and longest are how long a reader sleeps in one system call. A thread that enters one while the world is
	// being stopped for a garbage collection can be missed, up to Go 1.26 at least: reentersyscall looks whether that is so
	// before it says that it is in a system call, and stopTheWorldWithSema looks once, and later passes over whoever is. Then
	// everybody waits until the call returns or sysmon wakes, after a minute: if the next request depends on an answer to this
	// one, it does not come. A call that returns soon ends that; so the first is short. Long ones are entered when there
	// has been nothing to do for long, and so no reason for a collection.
	shortest = time.Millisecond
	growth   = 8
	longest  = 10 * time.Second
	// spare is how many readers are kept for when they are needed again.
	spare = 4
	// most is how many readers there are while requests are answered, without those that wait for
	// others. More readers would need memory for their answers, and would not be faster.
	most = 64
	// mostStuck is how many there are when none of them comes back: those hang on a layer that does
	// not answer. The daemon must still serve processes that do not use that layer. Each keeps a
	// thread.
	mostStuck = 1024
	// haste is how many readers at work make the watchdog send a further one although requests are being taken: when many come at
	// once for a layer that does not answer, others wait until each of them has a reader.
	haste = 8
	// stuckTicks is how many ticks without an answer to any request mean that none comes back.
	stuckTicks = 5
)

// Pool is the readers of one connection.
type Pool struct {
	device    Device
	newWorker func() Worker
	yield     func()

	door     atomic.Int32  // readers that look for a request or wait for one
	served   atomic.Uint64 // requests taken
	answered atomic.Uint64 // of them, those done
	vain     atomic.Int32  // looks in a row that found nothing
	watching atomic.Bool   // the watchdog is awake
	alarm    chan struct{} // wakes it
	done     chan struct{} // closed when the connection has ended
	all      sync.WaitGroup
	pace     pace
	awake    atomic.Bool // idle CPUs stay awake

	meanwhile func() (done bool) // nil: nothing
	noSpin    bool               // readers block at once; immutable

	mu      lock.Mutex[lock.Leaf] // guards the rest
	parked  []*reader
	running int
	err     error
	ended   bool
}

type reader struct {
	pool   *Pool
	worker Worker
	wake   chan struct{}
}

// New returns a pool. yield lets another thread run on the CPU.
func New(d Device, newWorker func() Worker, yield func()) *Pool {
	return &Pool{
		device: d, newWorker: newWorker, yield: yield,
		alarm: make(chan struct{}, 1), done: make(chan struct{}),
	}
}

// Tell has f told whenever requests begin to come fast, as they are taken to do at first, and when they no longer do, also when the
// connection ends then. It answers whether idle CPUs stay awake from now on. It must be called before [Pool.Run]; f is called by one goroutine.
func (p *Pool) Tell(f func(fast bool) (awake bool)) {
	p.pace.tell = func(fast bool) { p.awake.Store(f(fast)) }
}

// patience is how long a reader looks for the next request.
func (p *Pool) patience() time.Duration {
	switch {
	case p.noSpin:
		return 0
	case p.awake.Load():
		return shortPatience
	}
	return patience
}

// DisableSpin makes readers block at once if there is no request. Call it before [Pool.Run].
func (p *Pool) DisableSpin() { p.noSpin = true }

// Meanwhile has f called by a reader that has found no request, before it looks again: for what may be worth doing in the time
// until the next one. done says whether there was anything to do. f may take long after requests only: they wake the watchdog,
// which then sends another reader to the door. It must be called before [Pool.Run].
func (p *Pool) Meanwhile(f func() (done bool)) { p.meanwhile = f }

// Run serves until the connection ends and every reader has come back. It returns the device's last error.
func (p *Pool) Run() error {
	p.watching.Store(true) // before a reader looks whether it is
	p.promote(most)
	p.watch()
	p.all.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}

// Slow is for a worker that is about to do something that may take long: somebody else will be at the door.
func (p *Pool) Slow() {
	if p.door.Load() == 0 {
		p.promote(most)
	}
}

// While calls f for a worker, which waits in it for other requests to be answered: then there is a reader for them, also where there
// are as many as there may be.
func (p *Pool) While(f func()) {
	p.count(-1)
	defer p.count(1)
	p.Slow()
	f()
}

func (p *Pool) count(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.running += n
}

// promote lets a further reader take requests, unless as many as limit are at work.
func (p *Pool) promote(limit int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended {
		return
	}
	if last := len(p.parked) - 1; last >= 0 {
		r := p.parked[last]
		p.parked = p.parked[:last]
		p.door.Add(1)
		r.wake <- struct{}{}
		return
	}
	if p.running < limit {
		p.running++
		p.door.Add(1)
		p.all.Add(1)
		r := &reader{pool: p, worker: p.newWorker(), wake: make(chan struct{}, 1)}
		go r.run()
	}
}

func (r *reader) run() {
	p := r.pool
	defer p.all.Done()
	for {
		n, err := r.next()
		if err != nil {
			p.end(err)
			return
		}
		if n == 0 {
			return // there are readers enough
		}
		p.door.Add(-1)
		p.served.Add(1)
		if !p.watching.Load() && p.watching.CompareAndSwap(false, true) {
			p.alarm <- struct{}{}
		}
		r.worker.Serve(n)
		p.answered.Add(1)
		p.door.Add(1)
	}
}

// next takes the next request; 0 without an error is the end of this reader only.
func (r *reader) next() (int, error) {
	p := r.pool
	buf := r.worker.Buffer()
	start := time.Now()
	for looks := 0; ; looks++ {
		n, err := p.device.TryRead(buf)
		if err != unix.EAGAIN {
			if looks > 0 && err == nil {
				p.vain.Store(0)
			}
			return n, err
		}
		if p.useTime() {
			continue
		}
		if p.vain.Load() < discouraged && time.Since(start) < p.patience() {
			p.yield()
			continue
		}
		if p.leave() {
			if !p.park(r) {
				return 0, nil
			}
		} else {
			p.vain.Add(1)
			if err := r.wait(); err != nil {
				return 0, err
			}
			if time.Since(start) < p.patience() {
				p.vain.Store(0) // looking on would have paid
			}
		}
		start, looks = time.Now(), -1
	}
}

// useTime does what there is to do meanwhile, if anything. Nobody is at the door then, for the watchdog to see.
func (p *Pool) useTime() (done bool) {
	if p.meanwhile == nil {
		return false
	}
	p.door.Add(-1)
	done = p.meanwhile()
	p.door.Add(1)
	return done
}

// wait returns when there may be a request.
func (r *reader) wait() error {
	for limit := shortest; ; limit = min(limit*growth, longest) {
		if ready, err := r.pool.device.Wait(limit); ready || err != nil {
			return err
		}
	}
}

// leave takes a reader away from the door unless it is the last one there.
func (p *Pool) leave() bool {
	for {
		d := p.door.Load()
		if d <= 1 {
			return false
		}
		if p.door.CompareAndSwap(d, d-1) {
			return true
		}
	}
}

// atWork is the number of readers that have not been given back, parked ones not counted.
func (p *Pool) atWork() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.running - len(p.parked)
}

// park waits until r is needed again. It reports whether r is: not when others are kept already, or at the end.
func (p *Pool) park(r *reader) bool {
	p.mu.Lock()
	if p.ended || len(p.parked) >= spare {
		p.running--
		p.mu.Unlock()
		return false
	}
	p.parked = append(p.parked, r)
	p.mu.Unlock()
	select {
	case <-r.wake:
		return true
	case <-p.done:
		return false
	}
}

// end notes that the connection has ended.
func (p *Pool) end(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.ended {
		p.ended, p.err = true, err
		close(p.done)
	}
}

// watch sends a reader to the door whenever there was none for a whole tick, until the connection ends, and keeps the pace. It
// sleeps while there is nothing to do.
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

// watchRequests is the watchdog awake. It reports false at the end of the connection.
func (p *Pool) watchRequests(ticks <-chan time.Time) bool {
	answered, silent := p.answered.Load(), 0
	for last, idle := p.served.Load(), 0; ; {
		select {
		case <-ticks:
		case <-p.done:
			return false
		}
		now := p.served.Load()
		p.pace.tick(now - last)
		limit := most
		if done := p.answered.Load(); done != answered {
			answered, silent = done, 0
		} else if silent++; silent >= stuckTicks {
			limit = mostStuck
		}
		atDoor := p.door.Load() > 0
		switch {
		case now != last:
			last, idle = now, 0
			if !atDoor && p.atWork() >= haste {
				p.promote(limit)
			}
		case !atDoor:
			p.promote(limit)
		default:
			idle++
		}
		if idle < calm || p.pace.fast {
			continue
		}
		p.watching.Store(false)
		if p.served.Load() == last || !p.watching.CompareAndSwap(false, true) {
			return true
		}
		idle = 0 // a request came just now, and its reader took the watchdog to be awake
	}
}
