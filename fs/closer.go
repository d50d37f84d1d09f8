package fs

import (
	"sync/atomic"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/lock"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

const (
	// closeBatch is how many removed objects wait before they are closed at once.
	closeBatch = 64
	// closeDelay is how long a removed object waits at most.
	closeDelay = 20 * time.Millisecond
	// removalTime is how long after a removal a request that finds no space waits for FORGETs, and
	// forgetWait how long it waits.
	removalTime = 200 * time.Millisecond
	forgetWait  = 40 * time.Millisecond
)

// closer closes the objects of the upper that have no name and are in use no more. The close of
// the last descriptor frees inode and data, which takes as long as the UNLINK. So a goroutine
// closes them, and not the reader of the FORGET, whose next request is the next UNLINK.
// Any goroutine may call its methods.
type closer struct {
	disabled bool // immutable: descriptors are few

	lastRemoval atomic.Int64 // time, in nanoseconds

	closing lock.Mutex[lock.Closing] // held over the closes of a batch
	mu      lock.Mutex[lock.Leaf]    // guards the fields below
	waiting []*sys.Object
	running bool // the goroutine
	full    chan struct{}
}

func newCloser(b bounds) closer {
	return closer{disabled: b.parts == fewParts, full: make(chan struct{}, 1)}
}

// close closes object within closeDelay, or at once if descriptors are few or too many objects
// wait.
func (c *closer) close(object *sys.Object) {
	if c.disabled {
		object.Close()
		return
	}
	c.mu.Lock()
	c.waiting = append(c.waiting, object)
	n, start := len(c.waiting), !c.running
	c.running = true
	c.mu.Unlock()
	if start {
		go c.run()
	}
	switch {
	case n >= 2*closeBatch: // the goroutine is slower than the removals
		c.closeWaiting()
	case n >= closeBatch:
		select {
		case c.full <- struct{}{}:
		default:
		}
	}
}

// run closes batches until none is left.
func (c *closer) run() {
	delay := time.NewTimer(closeDelay)
	defer delay.Stop()
	for {
		select {
		case <-c.full:
		case <-delay.C:
		}
		c.closeWaiting()
		c.mu.Lock()
		c.running = len(c.waiting) > 0
		more := c.running
		c.mu.Unlock()
		if !more {
			return
		}
		delay.Reset(closeDelay)
	}
}

// noteRemoval notes that an object has lost a name, and its space may soon be free.
func (c *closer) noteRemoval() { c.lastRemoval.Store(time.Now().UnixNano()) }

// outOfSpace reports whether a request that failed is served again, after the objects that wait
// were closed. The kernel sends the FORGET of a removed file before unlink(2) returns, but another
// reader may still have it. No request that fails so has changed anything.
func (o *Overlay) outOfSpace(status fuse.Status, failures int) bool {
	if status != fuse.Status(unix.ENOSPC) && status != fuse.Status(unix.EDQUOT) {
		return false
	}
	if time.Now().UnixNano()-o.closer.lastRemoval.Load() > int64(removalTime) {
		return false
	}
	nap, waited := napAfter(failures)
	if waited > forgetWait {
		return false
	}
	if nap > 0 {
		o.conn.While(func() { time.Sleep(nap) })
	}
	o.closer.closeWaiting()
	return true
}

// closeWaiting closes all objects that wait, and waits for the batch that is being closed.
func (c *closer) closeWaiting() {
	c.closing.Lock()
	defer c.closing.Unlock()
	c.mu.Lock()
	batch := c.waiting
	c.waiting = nil
	c.mu.Unlock()
	for _, object := range batch {
		object.Close()
	}
}
