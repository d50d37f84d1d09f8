package sandbox

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// Versions of Landlock, as landlock_create_ruleset(2) returns them.
const (
	landlockTCP    = 4 // Linux 6.7: bind and connect of TCP sockets
	landlockScopes = 6 // Linux 6.12: abstract unix sockets, signals
)

// Flags of landlock_create_ruleset(2), and scopes (linux/landlock.h).
const (
	askVersion  = 1 << 0
	askErrata   = 1 << 1
	scopeSocket = 1 << 0
	scopeSignal = 1 << 1
	// erratumSignals is the bit of errata for signals between the threads of one process. Without this
	// fix, a scope of signals stops those by which the Go runtime stops its threads.
	erratumSignals = 1 << 1
)

// rulesetAttr is the beginning of struct landlock_ruleset_attr: what older kernels know of it.
type rulesetAttr struct{ fs, net, scoped uint64 }

// restrictByLandlock refuses TCP, and abstract unix sockets of and signals to other processes. A
// process in a Landlock domain cannot trace those outside of it either, nor open their memory. No
// rule is about files: the daemon reaches layers by descriptors of mounts without a path, for which
// there are no rules, and any such rule would forbid to rename and link between directories.
func restrictByLandlock() (refused []string, err error) {
	version, err := landlockReports(askVersion)
	switch {
	case err == unix.ENOSYS || err == unix.EOPNOTSUPP: // not in the kernel; not switched on at boot
		return nil, nil
	case err != nil:
		return nil, err
	case version < landlockTCP:
		return nil, nil
	}
	attr := rulesetAttr{net: unix.LANDLOCK_ACCESS_NET_BIND_TCP | unix.LANDLOCK_ACCESS_NET_CONNECT_TCP}
	size := unsafe.Offsetof(attr.scoped)
	refused = append(refused, "tcp", "ptrace")
	if version >= landlockScopes {
		size = unsafe.Sizeof(attr)
		attr.scoped = scopeSocket
		refused = append(refused, "abstract sockets")
		if errata, err := landlockReports(askErrata); err == nil && errata&erratumSignals != 0 {
			attr.scoped |= scopeSignal
			refused = append(refused, "signals")
		}
	}
	fd, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&attr)), size, 0)
	if errno != 0 {
		return nil, errno
	}
	defer func() { _ = unix.Close(int(fd)) }()
	if err := onAllThreads(unix.SYS_LANDLOCK_RESTRICT_SELF, fd, 0, 0, 0); err != nil {
		return nil, err
	}
	return refused, nil
}

// landlockReports returns the version, or the errata, of the kernel's Landlock.
func landlockReports(what uintptr) (int, error) {
	n, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, what)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}
