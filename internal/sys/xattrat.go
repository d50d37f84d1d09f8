package sys

import (
	"bytes"
	"strings"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// hasXattrat reports whether the kernel reads attributes by directory and name (Linux 6.13). It
// tries that on /, where no file system refuses it, because a filter that does not know the calls
// may return any errno.
var hasXattrat = sync.OnceValue(func() bool {
	path := [2]byte{'/'}
	_, _, errno := unix.Syscall6(unix.SYS_LISTXATTRAT, uintptr(atCwd), uintptr(unsafe.Pointer(&path[0])),
		unix.AT_SYMLINK_NOFOLLOW, 0, 0, 0)
	return errno == 0
})

// atCwd is AT_FDCWD as an argument of a system call.
var atCwd = unix.AT_FDCWD

// xattrCall is the memory that a getxattrat needs. It is on the heap, because struct xattr_args of
// linux/xattr.h has the address of the value as a number, and a stack may move.
type xattrCall struct {
	args struct {
		value uint64
		size  uint32
		flags uint32
	}
	path  [unix.NAME_MAX + 1]byte
	name  [unix.NAME_MAX + 1]byte
	value [fewBytes]byte
}

var xattrCalls = sync.Pool{New: func() any { return new(xattrCall) }}

// terminated copies a name and a zero behind it into buf.
func terminated(buf *[unix.NAME_MAX + 1]byte, name string) error {
	if len(name) >= len(buf) {
		return unix.ENAMETOOLONG
	}
	if strings.IndexByte(name, 0) >= 0 {
		return unix.EINVAL
	}
	buf[copy(buf[:], name)] = 0
	return nil
}

// getxattrat reads an attribute of an entry, which may be a symbolic link. ERANGE: it is longer
// than [fewBytes]. ENOSYS: the kernel has no such call.
func getxattrat(dir int, path, name string) ([]byte, error) {
	if !hasXattrat() {
		return nil, unix.ENOSYS
	}
	c := xattrCalls.Get().(*xattrCall)
	defer xattrCalls.Put(c)
	if err := terminated(&c.path, path); err != nil {
		return nil, err
	}
	if err := terminated(&c.name, name); err != nil {
		return nil, err
	}
	c.args.value, c.args.size = uint64(uintptr(unsafe.Pointer(&c.value))), uint32(len(c.value))
	for {
		n, _, errno := unix.Syscall6(unix.SYS_GETXATTRAT, uintptr(dir), uintptr(unsafe.Pointer(&c.path)),
			unix.AT_SYMLINK_NOFOLLOW, uintptr(unsafe.Pointer(&c.name)), uintptr(unsafe.Pointer(&c.args)), unsafe.Sizeof(c.args))
		switch errno {
		case 0:
			return bytes.Clone(c.value[:n]), nil
		case unix.EINTR:
			continue
		}
		return nil, errno
	}
}

// listxattrat reads the names of an entry's attributes, each with a zero behind it. ERANGE: buf is
// too short. ENOSYS: the kernel has no such call.
func listxattrat(dir int, path string, buf []byte) (int, error) {
	if !hasXattrat() {
		return 0, unix.ENOSYS
	}
	var terminatedPath [unix.NAME_MAX + 1]byte
	if err := terminated(&terminatedPath, path); err != nil {
		return 0, err
	}
	for {
		n, _, errno := unix.Syscall6(unix.SYS_LISTXATTRAT, uintptr(dir), uintptr(unsafe.Pointer(&terminatedPath)),
			unix.AT_SYMLINK_NOFOLLOW, uintptr(unsafe.Pointer(&buf[0])), uintptr(len(buf)), 0)
		switch errno {
		case 0:
			return int(n), nil
		case unix.EINTR:
			continue
		}
		return 0, errno
	}
}
