package sys

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// Handle is a file handle: what a file system calls one of its objects, whatever its names, for as long as the object exists
// (open_by_handle_at(2)). It is a value that can be compared; a handle of another file system may be the same.
type Handle struct {
	// Type is the form of ID, of the file system's choice (enum fid_type of the kernel).
	Type int32
	// ID are the bytes.
	ID string
}

// Handle asks for the object's handle, without its directory's (not a connectable one, in the kernel's words).
// EOPNOTSUPP where the file system cannot find an object by one.
func (r Ref) Handle() (Handle, error) {
	if err := fault("name_to_handle_at", r.name); err != nil {
		return Handle{}, err
	}
	flags := 0
	if r.name == "" {
		flags = unix.AT_EMPTY_PATH
	}
	h, _, err := unix.NameToHandleAt(r.fd, r.name, flags)
	if err != nil {
		return Handle{}, err
	}
	return Handle{h.Type(), string(h.Bytes())}, nil
}

// StatHandle fills st with what there is to tell of an object of d's file system: ESTALE when there is none of that handle,
// EPERM to who may not open objects but by their names (CAP_DAC_READ_SEARCH of the first user namespace). The object may
// lie outside of d's layer, so no access to it is given.
func (d *Dir) StatHandle(h Handle, st *Stat) error {
	if err := fault("open_by_handle_at", ""); err != nil {
		return err
	}
	var fd int
	err := retry(func() (err error) {
		fd, err = unix.OpenByHandleAt(d.fd, unix.NewFileHandle(h.Type, []byte(h.ID)), unix.O_PATH|unix.O_CLOEXEC)
		return err
	})
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	return unix.Fstat(fd, st)
}

// Requests that tell the number of a file system. The direction, that of reading, has other bits on some machines; they are
// taken from a constant of the same direction.
const (
	reading = unix.BLKBSZGET & 0xe0000000
	// getFSUUID is FS_IOC_GETFSUUID of linux/fs.h (Linux 6.9).
	getFSUUID = reading | uint(unsafe.Sizeof(fsUUID{}))<<16 | 0x15<<8
	// btrfsInfo is BTRFS_IOC_FS_INFO of linux/btrfs.h: btrfs has a number and does not tell it by the former.
	btrfsInfo = reading | uint(unsafe.Sizeof(btrfsFSInfo{}))<<16 | 0x94<<8 | 31
)

// fsUUID is struct fsuuid2.
type fsUUID struct {
	len  uint8
	uuid [16]byte
}

// btrfsFSInfo is struct btrfs_ioctl_fs_info_args.
type btrfsFSInfo struct {
	maxID, devices uint64
	uuid           [16]byte
	_              [1024 - 32]byte
}

// FSUUID is the number that the object's file system has for itself; all zero where it has none, or the kernel is too old to
// tell, or the object is not open for reading.
func (o *Object) FSUUID() ([16]byte, error) {
	if err := fault("ioctl", "GETFSUUID"); err != nil {
		return [16]byte{}, err
	}
	var u fsUUID
	errno := o.ioctl(getFSUUID, unsafe.Pointer(&u))
	var st unix.Statfs_t
	if errno != 0 && unix.Fstatfs(o.fd, &st) == nil && uint32(st.Type) == unix.BTRFS_SUPER_MAGIC {
		var info btrfsFSInfo
		errno = o.ioctl(btrfsInfo, unsafe.Pointer(&info))
		u.uuid = info.uuid
	}
	switch errno {
	case 0:
	case unix.ENOTTY, unix.EOPNOTSUPP, unix.EINVAL, unix.EBADF, unix.EPERM, unix.ENOSYS:
		return [16]byte{}, nil
	default:
		return [16]byte{}, errno
	}
	return u.uuid, nil
}

func (o *Object) ioctl(request uint, arg unsafe.Pointer) unix.Errno {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(o.fd), uintptr(request), uintptr(arg))
	return errno
}
