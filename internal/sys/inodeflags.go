package sys

import (
	"encoding/binary"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Flags of FS_IOC_GETFLAGS and FS_IOC_SETFLAGS (linux/fs.h).
const (
	FlagSync      uint32 = 0x08 // chattr +S
	FlagImmutable uint32 = 0x10 // chattr +i
	FlagAppend    uint32 = 0x20 // chattr +a
	FlagNodump    uint32 = 0x40 // chattr +d
	FlagNoatime   uint32 = 0x80 // chattr +A
)

// Protection returns FlagImmutable and FlagAppend of the object's inode, by statx(2), which takes
// any kind of object. It returns 0 if the file system does not report them.
func (r Ref) Protection() (uint32, error) {
	if err := fault("statx", r.name); err != nil {
		return 0, err
	}
	var st unix.Statx_t
	const flags = unix.AT_SYMLINK_NOFOLLOW | unix.AT_NO_AUTOMOUNT | unix.AT_EMPTY_PATH
	if err := unix.Statx(r.fd, r.name, flags, 0, &st); err != nil {
		if err == unix.ENOSYS { // before Linux 4.11, or a seccomp filter
			return 0, nil
		}
		return 0, err
	}
	var protection uint32
	if st.Attributes&unix.STATX_ATTR_IMMUTABLE != 0 {
		protection |= FlagImmutable
	}
	if st.Attributes&unix.STATX_ATTR_APPEND != 0 {
		protection |= FlagAppend
	}
	return protection, nil
}

// InodeFlags reads the flags of a regular file or directory (FS_IOC_GETFLAGS).
func (r Ref) InodeFlags() (uint32, error) {
	var arg [8]byte // the ioctl's number encodes eight bytes, the kernel uses four
	if err := r.inodeFlags("getflags", unix.FS_IOC_GETFLAGS, &arg); err != nil {
		return 0, err
	}
	return binary.NativeEndian.Uint32(arg[:]), nil
}

// SetInodeFlags sets all flags of a regular file or directory (FS_IOC_SETFLAGS).
func (r Ref) SetInodeFlags(flags uint32) error {
	var arg [8]byte
	binary.NativeEndian.PutUint32(arg[:], flags)
	return r.inodeFlags("setflags", unix.FS_IOC_SETFLAGS, &arg)
}

// inodeFlags makes the ioctl. It opens the object for reading unless the descriptor of r takes an
// ioctl.
func (r Ref) inodeFlags(what string, cmd uint32, arg *[8]byte) error {
	if err := fault(what, r.name); err != nil {
		return err
	}
	call := func(fd int) error {
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), uintptr(cmd), uintptr(unsafe.Pointer(arg)))
		if errno != 0 {
			return errno
		}
		return nil
	}
	path, at, extra := r.name, r.fd, unix.O_NOFOLLOW
	if r.name == "" {
		if err := call(r.fd); err != unix.EBADF { // what an O_PATH descriptor gives
			return err
		}
		path, at, extra = r.procPath(), unix.AT_FDCWD, 0
	}
	fd := -1
	err := retry(func() (err error) {
		fd, err = unix.Openat(at, path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK|unix.O_NOCTTY|extra, 0)
		return err
	})
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	return call(fd)
}
