//go:build amd64 || arm64

package sys

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// fstatat is unix.Fstatat without a copy of the name on the heap. Most requests make this call.
func fstatat(fd int, name string, st *Stat, flags int) error {
	var path [unix.NAME_MAX + 1]byte
	if err := terminated(&path, name); err != nil {
		return err
	}
	_, _, errno := unix.Syscall6(sysFstatat, uintptr(fd), uintptr(unsafe.Pointer(&path[0])),
		uintptr(unsafe.Pointer(st)), uintptr(flags), 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}
