package sandbox

import (
	"errors"
	"fmt"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// Rights are what a process keeps.
type Rights struct {
	// Capabilities is the set that remains, without those that the process does not have.
	Capabilities Set
	// ReconnectFD is the one socket that may be connected again; negative: none.
	ReconnectFD int
	// Trap makes a refused system call end the process with a trace, in place of EPERM. It is for
	// tests.
	Trap bool
}

// Result is what the process has given up.
type Result struct {
	Seccomp      bool
	Landlock     []string // what Landlock refuses; empty: the kernel does not have it
	Capabilities Set      // the ones that remain
	// Missing has a reason for each part that the process could not give up.
	Missing []error
}

// String describes the result for the log.
func (r Result) String() string {
	var parts []string
	if r.Seccomp {
		parts = append(parts, "seccomp")
	}
	if len(r.Landlock) > 0 {
		parts = append(parts, "landlock ("+strings.Join(r.Landlock, ", ")+")")
	}
	parts = append(parts, fmt.Sprintf("capabilities %#x", uint64(r.Capabilities)))
	if err := errors.Join(r.Missing...); err != nil {
		parts = append(parts, "without: "+strings.ReplaceAll(err.Error(), "\n", ", "))
	}
	return strings.Join(parts, ", ")
}

// Confine takes all other rights from this process. It cannot be undone. The caller has no thread
// in a system call that a signal does not end: the runtime waits for such a thread with the world
// stopped.
func Confine(keep Rights) (result Result) {
	missing := func(what string, err error) {
		if err != nil {
			result.Missing = append(result.Missing, fmt.Errorf("%s: %w", what, err))
		}
	}
	// The filter comes first: with it the kernel sets no_new_privs for all threads, which Landlock
	// needs.
	err := installFilter(keep)
	result.Seccomp = err == nil
	switch {
	case err == unix.ENOSYS:
		// Such a kernel is rare. An emulator of another CPU (qemu-user) has no seccomp either, and
		// does not deliver the signal by which the runtime reaches all threads.
		missing("no kernel with seccomp", err)
		return result
	case err != nil:
		missing("seccomp", err)
		missing("no_new_privs", onAllThreads(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0))
	}
	result.Landlock, err = restrictByLandlock()
	missing("landlock", err)
	result.Capabilities, err = dropCapabilities(keep.Capabilities)
	missing("capabilities", err)
	return result
}

// installFilter installs the seccomp filter for all threads. no_new_privs has to be set on the
// thread that does so.
func installFilter(keep Rights) error {
	filter, err := assemble(keep)
	if err != nil {
		return err
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	return setFilter(filter)
}
