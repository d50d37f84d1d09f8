package posix

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// readlinkat reads the link of a descriptor to a buffer that does not exist.
func readlinkat(link int) unix.Errno {
	empty := [1]byte{}
	_, _, errno := unix.Syscall6(unix.SYS_READLINKAT, uintptr(link), uintptr(unsafe.Pointer(&empty)), badAddress, 4096, 0, 0)
	return errno
}

// xattrCall makes a call on an xattr whose value does not exist.
func xattrCall(number uintptr, fd int, name *byte) unix.Errno {
	_, _, errno := unix.Syscall6(number, uintptr(fd), uintptr(unsafe.Pointer(name)), badAddress, 5, 0, 0)
	return errno
}
