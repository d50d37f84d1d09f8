package fs

import (
	"fmt"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/host"
)

// A process has a limited number of descriptors (ulimit -n). The layers use some as long as they
// are mounted, a request needs a few, and an object that lost its last name uses one while it is in
// use. The rest is for the cache of handles.

const (
	maxHandles = 4096
	// forMount is how many descriptors the mount itself uses after the layers have been opened, and
	// whileMounting how many it needs for some moments.
	forMount      = 2
	whileMounting = 3
	// forRequest is how many descriptors the most demanding request needs. A copy-up has five: the
	// directories of both layers, the source, the staged file and one that a system call opens.
	forRequest = 5
	// fewParts is how many parts of one directory a request keeps open at a time if descriptors are
	// few, manyParts otherwise.
	fewParts  = 2
	manyParts = 64
)

// errTooFew is the error of a mount that would have too few descriptors. It is EMFILE.
type errTooFew struct{ limit, need int }

func (e *errTooFew) Error() string {
	return fmt.Sprintf("the limit of open files is %d, and this mount needs %d at least", e.limit, e.need)
}

// Unwrap returns the errno.
func (e *errTooFew) Unwrap() error { return unix.EMFILE }

// bounds are how many descriptors stay open for later.
type bounds struct {
	handles int // by the cache
	parts   int // of one directory, by a request
}

// boundsOf divides what the limit leaves, if a number of descriptors are in use.
func boundsOf(limit, used int) bounds {
	handles := max(1, min(maxHandles, limit/4, (limit-used-forRequest)/2))
	if handles < manyParts {
		return bounds{handles, fewParts}
	}
	return bounds{handles, manyParts}
}

// openFiles returns the limit of open files, and how many descriptors are in use.
func openFiles() (limit, used int, err error) {
	most, err := host.OpenFilesLimit()
	if err != nil {
		return 0, 0, err
	}
	used, err = host.OpenFiles()
	return int(min(most, 1<<30)), used, err
}

// initialBounds returns the bounds before the mount.
func initialBounds() bounds {
	limit, used, err := openFiles()
	if err != nil { // no /proc: the number in use is not known
		return bounds{1, fewParts}
	}
	return boundsOf(limit, used+forMount)
}

// checkDescriptors refuses a mount that would have too few descriptors for a request. The process
// closes passing descriptors when the mount is up.
func checkDescriptors(passing int) error {
	limit, used, err := openFiles()
	if err != nil {
		return nil // requests will fail if there are too few
	}
	if need := used + max(whileMounting, forMount+forRequest-passing); need > limit {
		return &errTooFew{limit, need}
	}
	return nil
}

const (
	// descriptorWait is how long a request waits for others to close descriptors.
	descriptorWait = 5 * time.Second
	longestNap     = 20 * time.Millisecond
)

// outOfDescriptors reports whether a request that failed is served again, after idle descriptors
// were closed. No request that fails so has changed anything.
func (o *Overlay) outOfDescriptors(status fuse.Status, failures int) bool {
	if status != fuse.Status(unix.EMFILE) && status != fuse.Status(unix.ENFILE) {
		return false
	}
	nap, waited := napAfter(failures)
	if waited > descriptorWait {
		return false
	}
	o.handles.CloseIdle()
	o.closer.closeWaiting()
	if nap > 0 {
		o.conn.While(func() { time.Sleep(nap) })
	}
	return true
}

// napAfter returns how long a request waits that has failed so often, and how long it has waited
// before. It does not wait after the first failure.
func napAfter(failures int) (nap, waited time.Duration) {
	for range failures - 1 {
		waited += nap
		nap = min(2*nap+time.Millisecond, longestNap)
	}
	return nap, waited
}
