package host

import (
	"runtime"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The Go runtime ends the process if the kernel refuses a thread (newosproc): pids.max of a cgroup,
// RLIMIT_NPROC, memory. The runtime makes a thread when a goroutine could run while all threads are
// in system calls. So the threads are made before the goroutines that may need them, and only if
// the kernel grants more than these. The runtime never ends an idle thread.

// BackgroundCalls is how many system calls that may take long the process may make at a time
// without ReserveThreads.
const BackgroundCalls = 4

const (
	// otherThreads is how many threads a process needs besides those of ReserveThreads and one for
	// each CPU: the runtime's monitor and the one that starts others, that of signals, and single
	// calls of goroutines.
	otherThreads = 6 + BackgroundCalls
	// spareThreads is how many threads the kernel must grant besides those that are made. They are for
	// the runtime itself, and for other processes with the same limit.
	spareThreads = 4
)

// ReserveThreads makes the threads that n goroutines need if all of them are in system calls. It
// returns false if the kernel grants too few. It may be called by several goroutines.
func ReserveThreads(n int) bool {
	want := n + runtime.GOMAXPROCS(0) + otherThreads
	missing := want - threads()
	if missing <= 0 {
		return true
	}
	if !grantsThreads(missing + spareThreads) {
		return false
	}
	end := make(chan struct{})
	defer close(end)
	// A goroutine that is locked to its thread keeps it from all others, so each takes one: first
	// those that are idle, then new ones.
	for range want {
		began := make(chan struct{})
		go func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			close(began)
			<-end
		}()
		<-began
		if threads() >= want {
			return true
		}
	}
	return false
}

// threads returns how many threads the runtime has made.
func threads() int {
	n, _ := runtime.ThreadCreateProfile(nil)
	return n
}

// sleepers is the futex that the threads of grantsThreads wait for.
var sleepers atomic.Uint32

// grantsThreads reports whether the kernel grants n threads more now. It makes n at the same time,
// which then end. If clone(2) is not possible for another reason, that is no shortage.
func grantsThreads(n int) bool {
	word, now := (*uint32)(unsafe.Pointer(&sleepers)), sleepers.Load()
	granted := true
	for range n {
		switch startSleeper(word, now) {
		case unix.EAGAIN, unix.ENOMEM:
			granted = false
		}
	}
	sleepers.Add(1)
	_, _, _ = unix.RawSyscall(unix.SYS_FUTEX, uintptr(unsafe.Pointer(word)), futexWakePrivate, uintptr(1<<30))
	return granted
}

// futexWakePrivate is FUTEX_WAKE_PRIVATE.
const futexWakePrivate = 1 | 128
