//go:build amd64 || arm64

package host

import (
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A raw process is made by clone(2) without execve(2). It is a copy of a Go process of which one
// thread is left, as the child of a fork of package syscall is. So it must not allocate, grow the
// stack, or call anything but RawSyscall6. All that it uses is prepared before the clone.

const (
	// startAttempts is how often a raw process starts a program that ends before it is of use. Other
	// processes may kill many of them.
	startAttempts = 100
	// attemptPause is how long it waits between two attempts, in nanoseconds.
	attemptPause = 20e6
)

// unsignalled calls clone with all signals blocked on the calling thread. A new process inherits
// that. Go's handlers need the runtime, which a raw process has not. oldMask, which the process may
// read, gets the signals that were blocked before.
func unsignalled(oldMask *uint64, clone func() (pid uintptr, errno syscall.Errno)) (pid int, errno syscall.Errno) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	all := ^uint64(0)
	_, _, _ = syscall.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&all)),
		uintptr(unsafe.Pointer(oldMask)), unsafe.Sizeof(all), 0, 0)
	child, errno := clone()
	_, _, _ = syscall.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(oldMask)), 0, unsafe.Sizeof(all), 0, 0)
	return int(child), errno
}

// rawExit ends a raw process.
//
//go:nosplit
//go:norace
//go:nocheckptr
func rawExit(status uintptr) {
	for {
		_, _, _ = syscall.RawSyscall6(unix.SYS_EXIT_GROUP, status, 0, 0, 0, 0, 0)
	}
}
