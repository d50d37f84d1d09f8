package readers

import (
	"errors"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

var errEnded = errors.New("ended")

// fake is a device whose requests are single bytes, put in by the test.
type fake struct {
	requests chan byte
	end      chan struct{}
	once     sync.Once
	bell     chan struct{} // ends a Wait
}

func newFake() *fake {
	return &fake{requests: make(chan byte, 1000), end: make(chan struct{}), bell: make(chan struct{}, 1)}
}

// finish ends the device.
func (f *fake) finish() { f.once.Do(func() { close(f.end) }) }

func (f *fake) send(b byte) {
	f.requests <- b
	select {
	case f.bell <- struct{}{}:
	default:
	}
}

func (f *fake) TryRead(buf []byte) (int, error) {
	select {
	case buf[0] = <-f.requests:
		return 1, nil
	default:
	}
	select {
	case <-f.end:
		return 0, errEnded
	default:
		return 0, unix.EAGAIN
	}
}

func (f *fake) Wait(limit time.Duration) (ready bool, err error) {
	select {
	case <-f.bell:
	case <-f.end:
	case <-time.After(limit):
		return false, nil
	}
	return true, nil
}

// clock is a device that has no request; every vain-th Wait is an error.
type clock struct {
	fake
	limits []time.Duration
	vain   int
}

func (c *clock) Wait(limit time.Duration) (ready bool, err error) {
	c.limits = append(c.limits, limit)
	if len(c.limits)%c.vain == 0 {
		return false, errEnded
	}
	return false, nil
}

// A reader blocks for a short time at first: while it blocks, it may delay a collection of garbage.
func TestWaitsGrow(t *testing.T) {
	c := &clock{vain: 8}
	r := &reader{pool: &Pool{device: c}}
	for range 2 {
		if err := r.block(); err != errEnded {
			t.Fatal(err)
		}
	}
	const ms = time.Millisecond
	once := []time.Duration{ms, 8 * ms, 64 * ms, 512 * ms, 4096 * ms, 10000 * ms, 10000 * ms, 10000 * ms}
	if want := append(slices.Clone(once), once...); !slices.Equal(c.limits, want) {
		t.Errorf("blocked for %v, want %v", c.limits, want)
	}
}

// served is a worker that calls the test's function.
type served struct {
	buf [1]byte
	do  func(byte)
}

func (s *served) Buffer() []byte { return s.buf[:] }

func (s *served) Release()  {}
func (s *served) Serve(int) { s.do(s.buf[0]) }

// start runs a pool after prepare. The pool ends with the test at the latest and leaves no
// goroutine.
func start(t *testing.T, do func(*Pool, byte), prepare ...func(*Pool)) (f *fake, p *Pool, workers *atomic.Int32) {
	t.Helper()
	before := runtime.NumGoroutine()
	f, workers = newFake(), &atomic.Int32{}
	p = New(f, func() Worker {
		workers.Add(1)
		return &served{do: func(b byte) { do(p, b) }}
	}, runtime.Gosched)
	for _, set := range prepare {
		set(p)
	}
	ended := make(chan error)
	go func() { ended <- p.Run() }()
	t.Cleanup(func() {
		f.finish()
		select {
		case err := <-ended:
			if !errors.Is(err, errEnded) {
				t.Errorf("Run returned %v, want the device's error", err)
			}
		case <-time.After(10 * time.Second):
			t.Fatal("Run did not return after the device had ended")
		}
		for range 100 {
			if runtime.NumGoroutine() <= before {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
		t.Errorf("%d goroutines at the end, %d at the beginning", runtime.NumGoroutine(), before)
	})
	return f, p, workers
}

func within(t *testing.T, what string, c <-chan byte) byte {
	t.Helper()
	select {
	case b := <-c:
		return b
	case <-time.After(10 * time.Second):
		t.Fatalf("%s: nothing came", what)
		return 0
	}
}

func TestOneCallerNeedsOneReader(t *testing.T) {
	answers := make(chan byte)
	f, _, workers := start(t, func(_ *Pool, b byte) { answers <- b })
	for i := range 2000 {
		f.send(byte(i))
		if got := within(t, "answer", answers); got != byte(i) {
			t.Fatalf("request %d: answered %d", byte(i), got)
		}
	}
	// A tick of the watchdog may see a reader that the scheduler has not run.
	if n := workers.Load(); n > 3 {
		t.Errorf("%d readers for one caller", n)
	}
}

func TestStuckReaderDoesNotHoldUpOthers(t *testing.T) {
	const stuck, quick = 1, 2
	release, answers := make(chan struct{}), make(chan byte, 10)
	f, _, _ := start(t, func(_ *Pool, b byte) {
		if b == stuck {
			<-release
		}
		answers <- b
	})
	for range 3 { // each takes a reader away
		f.send(stuck)
	}
	f.send(quick)
	if got := within(t, "the answer that is ready", answers); got != quick {
		t.Fatalf("answered %d", got)
	}
	close(release)
	for range 3 {
		within(t, "a slow answer", answers)
	}
}

func TestSlowCallsAnotherAtOnce(t *testing.T) {
	const asking, quick = 1, 2
	waiting := make(chan byte, 1)
	release, answers := make(chan struct{}), make(chan byte, 10)
	f, _, workers := start(t, func(p *Pool, b byte) {
		if b == asking {
			p.Slow()
			waiting <- byte(p.waiting.Load())
			<-release
		}
		answers <- b
	})
	f.send(asking)
	if n := within(t, "Slow", waiting); n != 1 {
		t.Errorf("%d readers wait after Slow, want 1", n)
	}
	f.send(quick)
	within(t, "the other's answer", answers)
	close(release)
	within(t, "its own answer", answers)
	if n := workers.Load(); n < 2 {
		t.Errorf("%d readers, want 2", n)
	}
}

func TestManyAtOnceAllAnswered(t *testing.T) {
	const callers, each = 8, 500
	var mu sync.Mutex
	count := map[byte]int{}
	answers := make(chan byte, callers*each) // so that no reader waits for the test
	readers := 0                             // the most there were at any time
	f, _, _ := start(t, func(p *Pool, b byte) {
		if b%2 == 0 {
			p.Slow()
			time.Sleep(50 * time.Microsecond)
		}
		p.mu.Lock()
		running := p.running
		p.mu.Unlock()
		mu.Lock()
		count[b]++
		readers = max(readers, running)
		mu.Unlock()
		answers <- b
	})
	for c := range callers {
		go func() {
			for range each {
				f.send(byte(c))
			}
		}()
	}
	for range callers * each {
		within(t, "answer", answers)
	}
	mu.Lock()
	defer mu.Unlock()
	for c := range callers {
		if count[byte(c)] != each {
			t.Errorf("caller %d: %d answers of %d", c, count[byte(c)], each)
		}
	}
	if readers > maxReaders {
		t.Errorf("%d readers, at most %d allowed", readers, maxReaders)
	}
}

func TestReadersEndAfterABurst(t *testing.T) {
	release, answers := make(chan struct{}), make(chan byte, 100)
	f, p, _ := start(t, func(p *Pool, b byte) {
		p.Slow()
		<-release
		answers <- b
	})
	const burst = 20
	for range burst {
		f.send(0)
	}
	for range 1000 {
		if len(f.requests) == 0 {
			break
		}
		time.Sleep(time.Millisecond)
	}
	close(release)
	for range burst {
		within(t, "answer", answers)
	}
	running := func() int {
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.running
	}
	for range 1000 {
		if running() <= maxIdle+1 {
			return
		}
		time.Sleep(time.Millisecond)
	}
	t.Errorf("%d readers stay after a burst of %d, want at most %d", running(), burst, maxIdle+1)
}

// OnIdle runs between two requests, by a reader that does not count as waiting: a request that
// comes meanwhile does not wait for it.
func TestIdleTimeIsUsed(t *testing.T) {
	answers, begun, release := make(chan byte, 1), make(chan byte), make(chan struct{})
	var served, asked atomic.Int32
	f, _, _ := start(t, func(_ *Pool, b byte) {
		served.Add(1)
		answers <- b
	}, func(p *Pool) {
		p.OnIdle(func() bool {
			if served.Load() == 0 || asked.Add(1) != 1 { // after the first request, which wakes the watchdog
				return false
			}
			begun <- byte(p.waiting.Load())
			<-release
			return true
		})
	})
	f.send(1)
	within(t, "answer", answers)
	if at := within(t, "the use of the time", begun); at != 0 {
		t.Errorf("%d readers wait meanwhile, besides that of the watchdog", at)
	}
	f.send(2)
	if got := within(t, "the answer to a request meanwhile", answers); got != 2 {
		t.Errorf("answered %d", got)
	}
	close(release)
	f.send(3)
	within(t, "answer", answers)
}

// Workers that wait for another request do not take the reader that serves it, however many they
// are.
func TestReadersThatWaitForOthers(t *testing.T) {
	const last = 0
	served, inWhile := make(chan byte, 1), make(chan byte, maxReaders)
	answered := make(chan struct{})
	f, p, _ := start(t, func(p *Pool, b byte) {
		if b == last {
			served <- b
			close(answered)
			return
		}
		p.While(func() { inWhile <- b; <-answered })
	})
	for i := range maxReaders {
		f.send(byte(i + 1))
		within(t, "a request that waits", inWhile)
	}
	f.send(last)
	within(t, "the request that they wait for", served)
	for range 1000 {
		p.mu.Lock()
		running := p.running
		p.mu.Unlock()
		if running <= maxReaders {
			return
		}
		time.Sleep(time.Millisecond)
	}
	t.Error("there are more readers than there may be, with nothing to do")
}

// The watchdog sleeps when there are no requests. The next request wakes it.
func TestWatchdogSleeps(t *testing.T) {
	answers := make(chan byte, 1)
	f, p, _ := start(t, func(_ *Pool, b byte) { answers <- b })
	for range 3 {
		f.send(1)
		within(t, "answer", answers)
		for looks := 0; p.watching.Load(); looks++ {
			if looks == 1000 {
				t.Fatal("the watchdog stays awake without requests")
			}
			time.Sleep(tick)
		}
	}
}

// However many requests hang, the next one is answered.
func TestReadersThatAreStuck(t *testing.T) {
	const last, stuck = 0, 300
	answers, hang := make(chan byte, 1), make(chan struct{})
	f, p, _ := start(t, func(_ *Pool, b byte) {
		if b == last {
			answers <- b
			return
		}
		<-hang
	})
	for range stuck {
		f.send(1)
	}
	f.send(last)
	within(t, "the answer to a request behind others that hang", answers)
	close(hang)
	for range 1000 {
		p.mu.Lock()
		running := p.running
		p.mu.Unlock()
		if running <= maxIdle+1 {
			return
		}
		time.Sleep(time.Millisecond)
	}
	t.Error("the readers stay")
}
