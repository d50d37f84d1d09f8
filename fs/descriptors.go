package fs

import (
	"fmt"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/host"
)

// The process may have a limited number of descriptors open (ulimit -n). The layers keep some as long as they are mounted, a request needs
// a few, and an object that lost its last name keeps one while it is in use. What is left is for the cache of handles.

const (
	maxHandles = 4096
	// forMount is how many descriptors the mount itself takes after the layers have been opened, and whileMounting how many it needs for
	// some moments.
	forMount      = 2
	whileMounting = 3
	// forRequest is how many descriptors the most demanding request needs. A copy-up has five: the
	// directories of both layers, the source, the staged file and one that a system call opens.
	forRequest = 5
	// onlyParts is how many parts of one directory a request keeps open at a time where descriptors are few, mostParts else.
	onlyParts = 2
	mostParts = 64
)

// errTooFew contains how many descriptors a mount needs. It is EMFILE.
type errTooFew struct{ limit, need int }

func (e *errTooFew) Error() string {
	return fmt.Sprintf("the limit of open files is %d, and this mount needs %d at least", e.limit, e.need)
}

// Unwrap is the errno.
func (e *errTooFew) Unwrap() error { return unix.EMFILE }

// bounds are how many descriptors are kept open for later.
type bounds struct {
	handles int // by the cache
	parts   int // of one directory, by a request
}

// boundsOf shares out what the limit leaves, where a number of descriptors are in use.
func boundsOf(limit, used int) bounds {
	handles := max(1, min(maxHandles, limit/4, (limit-used-forRequest)/2))
	if handles < mostParts {
		return bounds{handles, onlyParts}
	}
	return bounds{handles, mostParts}
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

// initialBounds are those before the mount.
func initialBounds() bounds {
	limit, used, err := openFiles()
	if err != nil { // no /proc: what is in use is guessed
		return bounds{1, onlyParts}
	}
	return boundsOf(limit, used+forMount)
}

// checkDescriptors refuses a mount that would have too few descriptors for a request. passing are those that are closed when the mount is
// up.
func checkDescriptors(passing int) error {
	limit, used, err := openFiles()
	if err != nil {
		return nil // it will be seen
	}
	if need := used + max(whileMounting, forMount+forRequest-passing); need > limit {
		return &errTooFew{limit, need}
	}
	return nil
}

const (
	// descriptorWait is how long a request waits for others to give descriptors back.
	descriptorWait = 5 * time.Second
	longestNap     = 20 * time.Millisecond
)

// outOfDescriptors reports whether a request that failed is to be tried again, after descriptors were given back: no request that fails
// so has changed anything.
func (o *Overlay) outOfDescriptors(status fuse.Status, failures int) bool {
	if status != fuse.Status(unix.EMFILE) && status != fuse.Status(unix.ENFILE) {
		return false
	}
	nap, waited := napAfter(failures)
	if waited > descriptorWait {
		return false
	}
	o.handles.Shed()
	if nap > 0 {
		o.conn.While(func() { time.Sleep(nap) })
	}
	return true
}

// napAfter returns how long a request waits that has failed so often, and how long it has waited before. It does not wait after
// the first failure.
func napAfter(failures int) (nap, waited time.Duration) {
	for range failures - 1 {
		waited += nap
		nap = min(2*nap+time.Millisecond, longestNap)
	}
	return nap, waited
}
