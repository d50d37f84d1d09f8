//go:build amd64 || arm64

package sys

import (
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// fstatat is that of x/sys without a copy of the name on the heap: it is the call that most requests make.
func fstatat(fd int, name string, st *Stat, flags int) error {
	var path [unix.NAME_MAX + 1]byte
	if len(name) >= len(path) {
		return unix.ENAMETOOLONG
	}
	if strings.IndexByte(name, 0) >= 0 {
		return unix.EINVAL
	}
	copy(path[:], name)
	_, _, errno := unix.Syscall6(sysFstatat, uintptr(fd), uintptr(unsafe.Pointer(&path[0])),
		uintptr(unsafe.Pointer(st)), uintptr(flags), 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}
