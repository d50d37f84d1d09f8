package sandbox

import (
	"os"
	"syscall"
)

// onAllThreads makes a system call on each thread of the process. ENOTSUP: the program is built
// with cgo, as with the race detector: its libraries may have threads that the runtime does not
// know. Then nothing has changed.
//
//go:uintptrescapes
func onAllThreads(call, a, b, c, d uintptr) error {
	_, _, errno := syscall.AllThreadsSyscall6(call, a, b, c, d, 0, 0)
	switch errno {
	case 0:
		return nil
	case syscall.ENOTSUP:
		return errCgo
	}
	return errno
}

// errCgo is the error of onAllThreads in a program with cgo.
var errCgo = cgoError{}

type cgoError struct{}

func (cgoError) Error() string { return "not in a build with cgo" }

// pid is the number of this process.
func pid() uint32 { return uint32(os.Getpid()) }
