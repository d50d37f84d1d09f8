package readers

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/fuse-overlay/fuse-overlay/internal/lock"
)

// Device is where requests come from. internal/host.Device is one.
type Device interface {
	// TryRead takes a request. EAGAIN: there is none. Any other error ends the pool.
	TryRead(buf []byte) (int, error)
	// Wait returns ready=true if there may be a request, or if TryRead has an error to report. It
	// returns false after limit.
	Wait(limit time.Duration) (ready bool, err error)
}

// Worker serves requests, one at a time.
type Worker interface {
	// Buffer is where the next request goes.
	Buffer() []byte
	// Serve answers the request in the first n bytes of Buffer.
	Serve(n int)
	// Release is called when no further request comes.
	Release()
}

const (
	// maxIdle is how many idle readers are retained for the next time that several are needed.
	maxIdle = 4
	// maxReaders is how many readers there are while requests are answered, without those in
	// [Pool.While]. More readers would need memory for their replies, and would not be faster.
	maxReaders = 64
	// maxStuckReaders is how many there are when none of them comes back: those hang on a layer that
	// does not answer. The daemon must still serve processes that do not use that layer. Each keeps
	// a thread.
	maxStuckReaders = 1024
	// growPause is how long the pool waits after a refusal of OnGrow before it tries again.
	growPause = 20 * time.Millisecond
)

// Pool is the readers of one connection.
type Pool struct {
	device    Device
	newWorker func() Worker
	yield     func()

	waiting   atomic.Int32  // readers that spin or block for a request
	served    atomic.Uint64 // requests taken
	answered  atomic.Uint64 // of them, those done
	vainSpins atomic.Int32  // spins in a row that found no request
	watching  atomic.Bool   // the watchdog is awake
	alarm     chan struct{} // wakes it
	done      chan struct{} // closed when the connection has ended
	all       sync.WaitGroup
	pace      pace
	awake     atomic.Bool // idle CPUs stay awake

	onIdle  func() (done bool)        // nil: nothing; immutable
	onGrow  func(readers int) bool    // nil: always true; immutable
	noSpin  bool                      // readers block at once; immutable
	refused atomic.Pointer[time.Time] // when onGrow last returned false; nil: never

	mu      lock.Mutex[lock.Leaf] // guards the rest
	idle    []*reader
	running int // readers, the idle ones included, without those in While
	inWhile int
	err     error
	ended   bool
}

// New returns a pool. yield lets another thread run on the CPU.
func New(d Device, newWorker func() Worker, yield func()) *Pool {
	return &Pool{
		device: d, newWorker: newWorker, yield: yield,
		alarm: make(chan struct{}, 1), done: make(chan struct{}),
	}
}

// OnPaceChange registers f. The pool calls f when requests begin to come fast and when they no
// longer do, once at the start and once at the end of the connection. f returns whether idle CPUs
// stay awake from then on. Calls do not overlap. Call OnPaceChange before [Pool.Run].
func (p *Pool) OnPaceChange(f func(fast bool) (awake bool)) {
	p.pace.changed = func(fast bool) { p.awake.Store(f(fast)) }
}

// OnIdle registers f. A reader that finds no request calls f before it looks again. f returns
// whether there was anything to do. If f takes long after a request, the watchdog adds another
// reader. Call OnIdle before [Pool.Run].
func (p *Pool) OnIdle(f func() (done bool)) { p.onIdle = f }

// OnGrow registers f. Before the pool adds a reader, it calls f with the number of readers that it
// will have. If f returns false, the pool does not add it: requests wait for the readers at work.
// The watchdog tries again. The first reader is always added. Calls may overlap. Call OnGrow before
// [Pool.Run].
func (p *Pool) OnGrow(f func(readers int) bool) { p.onGrow = f }

// DisableSpin makes readers block at once if there is no request. Call it before [Pool.Run].
func (p *Pool) DisableSpin() { p.noSpin = true }

// Run serves until the connection ends and every reader has come back. It returns the device's last
// error.
func (p *Pool) Run() error {
	p.watching.Store(true) // before the first reader reads it
	p.addReader(maxReaders)
	p.watch()
	p.all.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}

// Slow is called by a worker before something that may take long. Another reader then waits for
// requests.
func (p *Pool) Slow() {
	if p.waiting.Load() == 0 {
		p.addReader(maxReaders)
	}
}

// While calls f for a worker. f waits until other requests are answered, so there is a reader for
// them even if the pool has its maximum.
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
	p.inWhile -= n
}

// addReader lets a further reader take requests, unless limit readers are at work.
func (p *Pool) addReader(limit int) {
	if p.wakeIdle() || !p.mayGrow() {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.ended && p.running < limit {
		p.running++
		p.waiting.Add(1)
		p.all.Add(1)
		r := &reader{pool: p, worker: p.newWorker(), wake: make(chan struct{}, 1)}
		go r.run()
	}
}

// wakeIdle lets an idle reader take requests. It returns false if there is none.
func (p *Pool) wakeIdle() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	last := len(p.idle) - 1
	if p.ended || last < 0 {
		return false
	}
	r := p.idle[last]
	p.idle = p.idle[:last]
	p.waiting.Add(1)
	r.wake <- struct{}{}
	return true
}

// mayGrow calls onGrow for one more reader, unless it has just been refused.
func (p *Pool) mayGrow() bool {
	if p.onGrow == nil {
		return true
	}
	if at := p.refused.Load(); at != nil && time.Since(*at) < growPause {
		return false
	}
	p.mu.Lock()
	readers := p.running + p.inWhile
	p.mu.Unlock()
	if readers == 0 || p.onGrow(readers+1) {
		return true
	}
	now := time.Now()
	p.refused.Store(&now)
	return false
}

// atWork returns how many readers wait for a request or serve one, without those in While.
func (p *Pool) atWork() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.running - len(p.idle)
}

// end records that the connection has ended.
func (p *Pool) end(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.ended {
		p.ended, p.err = true, err
		close(p.done)
	}
}
