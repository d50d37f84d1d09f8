//go:build race && (amd64 || arm64)

package sandbox

import "golang.org/x/sys/unix"

// freeInRaceBuilds are calls of the race detector and of the C library that it needs.
var freeInRaceBuilds = []uint32{
	unix.SYS_MREMAP, unix.SYS_BRK, unix.SYS_SYSINFO, unix.SYS_SCHED_SETAFFINITY,
}
