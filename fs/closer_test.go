package fs

import (
	"fmt"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/fs/conn"
)

// removedIn makes and removes a number of files of the upper, whose inodes the kernel still has.
func removedIn(s *site, count int) (ids []uint64) {
	s.t.Helper()
	for i := range count {
		name := fmt.Sprintf("f%d", i)
		s.do(s.mknod(name, unix.S_IFREG|0o600, 0))
		id, err := s.walk(name)
		must(s.t, err)
		s.do(s.unlink(name))
		ids = append(ids, id)
	}
	return ids
}

// forgetThem sends a FORGET of each node, and closes nothing by itself.
func forgetThem(s *site, ids []uint64) {
	for _, id := range ids {
		s.mu.Lock()
		n := s.refs[id]
		delete(s.refs, id)
		s.mu.Unlock()
		s.o.Forget(id, n)
	}
}

// Removed objects that the kernel has forgotten are closed soon, without another request.
func TestRemovedObjectsAreClosedSoon(t *testing.T) {
	for _, count := range []int{1, closeBatch - 1, closeBatch, 5*closeBatch + 1} {
		s := newSite(t, "", "")
		fds := openFDs(t)
		ids := removedIn(s, count)
		if n := openFDs(t) - fds; n < count {
			t.Errorf("%d removed files are open, want %d", n, count)
		}
		s.o.handles.Clear()
		fds = openFDs(t) - count
		forgetThem(s, ids)
		for deadline := time.Now().Add(10 * time.Second); openFDs(t) != fds; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%d of %d files are still open", openFDs(t)-fds, count)
			}
		}
		s.shut()
	}
}

// While the goroutine cannot close, the reader of the FORGETs closes: few objects wait at a time.
func TestWaitingObjectsAreBounded(t *testing.T) {
	s := newSite(t, "", "")
	ids := removedIn(s, 4*closeBatch)
	c := &s.o.closer
	c.mu.Lock()
	c.running = true // no goroutine begins
	c.mu.Unlock()
	for i, id := range ids {
		forgetThem(s, []uint64{id})
		c.mu.Lock()
		n := len(c.waiting)
		c.mu.Unlock()
		if want := (i + 1) % (2 * closeBatch); n != want {
			t.Fatalf("after %d FORGETs %d objects wait, want %d", i+1, n, want)
		}
	}
}

// A removed object of a lower is closed by its FORGET: the lower's server may not answer a close.
func TestRemovedLowerObjectIsClosedAtOnce(t *testing.T) {
	s := newSite(t, "", "file f \"text\"")
	id, err := s.walk("f")
	must(t, err)
	s.do(s.unlink("f"))
	s.o.handles.Clear()
	fds := openFDs(t)
	forgetThem(s, []uint64{id})
	if n := openFDs(t); n != fds-1 || len(s.o.closer.waiting) != 0 {
		t.Errorf("%d descriptors, want %d; %d objects wait", n, fds-1, len(s.o.closer.waiting))
	}
}

// With few descriptors nothing waits.
func TestFewDescriptorsDoNotWait(t *testing.T) {
	s := newSite(t, "", "")
	s.o.closer = newCloser(boundsOf(64, 20))
	ids := removedIn(s, 3)
	s.o.handles.Clear()
	fds := openFDs(t)
	forgetThem(s, ids)
	if n := openFDs(t); n != fds-len(ids) {
		t.Errorf("%d descriptors, want %d", n, fds-len(ids))
	}
	if newCloser(boundsOf(1024, 20)).disabled {
		t.Error("with 1024 descriptors each removed object is closed at once")
	}
}

// A request that finds no space or no descriptor closes the removed objects that wait, and is
// served again.
func TestShortageClosesRemovedObjects(t *testing.T) {
	for status, again := range map[unix.Errno]bool{
		unix.ENOSPC: true, unix.EDQUOT: true, unix.EMFILE: true, unix.EIO: false,
	} {
		s := newSite(t, "", "")
		ids := removedIn(s, 3)
		s.o.handles.Clear()
		fds := openFDs(t)
		c := &s.o.closer
		c.mu.Lock()
		c.running = true // no goroutine begins
		c.mu.Unlock()
		forgetThem(s, ids)
		failed := func(failures int) bool {
			return s.o.Failed(conn.Request{NodeID: 1, Failures: failures}, fuse.Status(status))
		}
		if got := failed(1); got != again {
			t.Errorf("%v: served again: %t, want %t", status, got, again)
		}
		if n := openFDs(t); again && n != fds-len(ids) {
			t.Errorf("%v: %d descriptors, want %d", status, n, fds-len(ids))
		}
		s.shut()
	}
}

// A request that finds no space is served again some times after a removal, and not at all if the
// last removal is long ago.
func TestNoSpaceIsReported(t *testing.T) {
	s := newSite(t, "file f", "")
	again := func(failures int) bool {
		return s.o.Failed(conn.Request{NodeID: 1, Failures: failures}, fuse.Status(unix.ENOSPC))
	}
	if again(1) {
		t.Error("served again without a removal")
	}
	s.do(s.unlink("f"))
	failures := 1
	for again(failures) {
		if failures++; failures > 100 {
			t.Fatal("served again without end")
		}
	}
	if failures == 1 {
		t.Error("not served again right after a removal")
	}
	s.o.closer.lastRemoval.Add(-int64(removalTime))
	if again(1) {
		t.Error("served again long after a removal")
	}
}

// Close closes the objects that wait.
func TestCloseClosesRemovedObjects(t *testing.T) {
	before := openFDs(t)
	s := newSite(t, "", "")
	ids := removedIn(s, 3)
	forgetThem(s, ids)
	s.o.Close()
	if n := openFDs(t); n != before {
		t.Errorf("%d descriptors are left", n-before)
	}
	s.kernel = nil
}
