// Package sys is the one gate between the program and the system calls it makes on layers.
//
// A [Dir] is the only handle on a directory of a layer. It comes from [OpenLower] or [OpenUpper],
// which take a trusted path at mount time, or from another Dir by one confined step. Names are
// single components. So a hostile layer full of symbolic links and "..", or one that changes under
// a running mount, never leads outside its root.
//
// Every call passes the fault seam ([SetFault]) first, and every error is a unix.Errno. What lies
// around the layers is in internal/host. The package does not decide what a name means, when an
// object is copied and which process may do so.
package sys

import (
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Op is one system call about to be made.
type Op struct {
	// Call is the name of the system call, as in section 2 of the manual.
	Call string
	// Name is the path or extended attribute name given to it, where it takes one.
	Name string
}

var faultHook atomic.Pointer[func(Op) error]

// SetFault installs f. Every system call calls it first, and fails with the errno that it returns.
// nil removes it. It is for tests alone, which count calls, record their order and imitate a
// failing disk or a kill.
func SetFault(f func(Op) error) {
	if f == nil {
		faultHook.Store(nil)
		return
	}
	faultHook.Store(&f)
}

func fault(call, name string) error {
	if f := faultHook.Load(); f != nil {
		return (*f)(Op{Call: call, Name: name})
	}
	return nil
}

// Stat holds the attributes of an object (stat(2)).
type Stat = unix.Stat_t

// retry repeats a call that a signal interrupted.
func retry(f func() error) error {
	for {
		if err := f(); err != unix.EINTR {
			return err
		}
	}
}
