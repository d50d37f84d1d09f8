package sys

import (
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The kernel's overlayfs marks file handles with the UUID of the file system, s_uuid of its
// superblock. Linux 6.9 is the first to return that to processes for all file systems. Before, each
// file system has an ioctl of its own or none. A source is used only for file systems whose s_uuid
// is the UUID on disk, because the kernel would not find handles with another one.

// UUID is that of a file system. All zero: it has none, or it is not known.
type UUID = [16]byte

// uuidSources are the sources of a file system's UUID. The first that returns one counts. types are
// the types of statfs(2) for which a source is tried; none means all.
var uuidSources = []struct {
	types []uint32
	read  func(o *Object) (UUID, error)
}{
	{nil, (*Object).fsUUID},
	{[]uint32{unix.BTRFS_SUPER_MAGIC}, (*Object).btrfsUUID},
	{[]uint32{unix.XFS_SUPER_MAGIC}, (*Object).xfsUUID},
	{[]uint32{unix.EXT4_SUPER_MAGIC}, (*Object).ext4UUID},
	{[]uint32{unix.EXT4_SUPER_MAGIC}, (*Object).linkedUUID},
	{[]uint32{unix.EXT4_SUPER_MAGIC}, (*Object).ext4UUIDOnDisk},
}

// FSUUID returns the UUID of the object's file system. It is all zero if the file system has none,
// if no source returns it, or if the object is not open for reading.
func (o *Object) FSUUID() (UUID, error) {
	var st unix.Statfs_t
	if err := unix.Fstatfs(o.fd, &st); err != nil {
		return UUID{}, err
	}
	for _, source := range uuidSources {
		asked := source.types == nil
		for _, t := range source.types {
			asked = asked || t == uint32(st.Type)
		}
		if !asked {
			continue
		}
		switch uuid, err := source.read(o); err {
		case nil:
			return uuid, nil
		case unix.ENOTTY, unix.EOPNOTSUPP, unix.EINVAL, unix.EBADF, unix.EPERM, unix.EACCES, unix.ENOSYS, unix.ENOENT:
			// this source has no UUID
		default:
			return UUID{}, err
		}
	}
	return UUID{}, nil
}

// Requests of ioctl(2). On some architectures the direction, reading, has other bits. A constant of
// the same direction has them.
const (
	reading = unix.BLKBSZGET & 0xe0000000
	// getFSUUID is FS_IOC_GETFSUUID of linux/fs.h (Linux 6.9).
	getFSUUID = reading | uint(unsafe.Sizeof(fsUUID{}))<<16 | 0x15<<8
	// btrfsInfo is BTRFS_IOC_FS_INFO of linux/btrfs.h. btrfs does not support getFSUUID.
	btrfsInfo = reading | uint(unsafe.Sizeof(btrfsFSInfo{}))<<16 | 0x94<<8 | 31
	// xfsGeometry is XFS_IOC_FSGEOMETRY_V1 of fs/xfs/libxfs/xfs_fs.h, which every kernel knows.
	xfsGeometry = reading | uint(unsafe.Sizeof(xfsGeom{}))<<16 | 'X'<<8 | 100
	// ext4GetUUID is EXT4_IOC_GETFSUUID of fs/ext4/ext4.h (Linux 6.0). Its size is that of struct
	// fsuuid without the UUID.
	ext4GetUUID = reading | 8<<16 | 'f'<<8 | 44
)

// fsUUID is struct fsuuid2.
type fsUUID struct {
	len  uint8
	uuid UUID
}

// btrfsFSInfo is struct btrfs_ioctl_fs_info_args.
type btrfsFSInfo struct {
	maxID, devices uint64
	uuid           UUID
	_              [1024 - 32]byte
}

// xfsGeom is struct xfs_fsop_geom_v1.
type xfsGeom struct {
	_    [8]uint32
	_    [4]uint64
	uuid UUID
	_    [7]uint32
}

// ext4FSUUID is struct fsuuid with room for a UUID.
type ext4FSUUID struct {
	len, flags uint32
	uuid       UUID
}

func (o *Object) ioctl(name string, request uint, arg unsafe.Pointer) error {
	if err := fault("ioctl", name); err != nil {
		return err
	}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(o.fd), uintptr(request), uintptr(arg)); errno != 0 {
		return errno
	}
	return nil
}

func (o *Object) fsUUID() (UUID, error) {
	var u fsUUID
	err := o.ioctl("GETFSUUID", getFSUUID, unsafe.Pointer(&u))
	return u.uuid, err
}

func (o *Object) btrfsUUID() (UUID, error) {
	var info btrfsFSInfo
	err := o.ioctl("BTRFS_FS_INFO", btrfsInfo, unsafe.Pointer(&info))
	return info.uuid, err
}

func (o *Object) xfsUUID() (UUID, error) {
	var geom xfsGeom
	err := o.ioctl("XFS_FSGEOMETRY", xfsGeometry, unsafe.Pointer(&geom))
	return geom.uuid, err
}

func (o *Object) ext4UUID() (UUID, error) {
	u := ext4FSUUID{len: uint32(len(UUID{}))}
	err := o.ioctl("EXT4_GETFSUUID", ext4GetUUID, unsafe.Pointer(&u))
	return u.uuid, err
}

// byUUID is the folder in which udev links devices under the UUIDs of their file systems.
const byUUID = "/dev/disk/by-uuid"

// linkedUUID looks for the device of the file system in byUUID.
func (o *Object) linkedUUID() (UUID, error) {
	dev, err := o.device()
	if err != nil {
		return UUID{}, err
	}
	return uuidLink(byUUID, dev)
}

// uuidLink finds the link to a device in a folder of such links.
func uuidLink(folder string, dev uint64) (UUID, error) {
	if err := fault("open", folder); err != nil {
		return UUID{}, err
	}
	entries, err := os.ReadDir(folder)
	if err != nil {
		return UUID{}, unix.ENOENT
	}
	for _, e := range entries {
		var st unix.Stat_t
		if unix.Stat(filepath.Join(folder, e.Name()), &st) != nil || st.Rdev != dev || st.Mode&unix.S_IFMT != unix.S_IFBLK {
			continue
		}
		return parseUUID(e.Name())
	}
	return UUID{}, unix.ENOENT
}

// parseUUID parses the usual form, five groups of digits. EINVAL: another form, as FAT has.
func parseUUID(text string) (u UUID, err error) {
	bytes, err := hex.DecodeString(strings.ReplaceAll(text, "-", ""))
	if err != nil || len(text) != 36 || len(bytes) != len(u) {
		return UUID{}, unix.EINVAL
	}
	return UUID(bytes), nil
}

// Places in the superblock of ext2, ext3 and ext4 (struct ext4_super_block).
const (
	ext4SuperAt = 1024
	ext4MagicAt = 0x38
	ext4UUIDAt  = 0x68
)

// ext4UUIDOnDisk reads the superblock. The daemon needs the right to read the device.
func (o *Object) ext4UUIDOnDisk() (UUID, error) {
	dev, err := o.device()
	if err != nil {
		return UUID{}, err
	}
	text, err := readHost(fmt.Sprintf("/sys/dev/block/%d:%d/uevent", unix.Major(dev), unix.Minor(dev)))
	if err != nil {
		return UUID{}, err
	}
	_, name, _ := strings.Cut("\n"+text, "\nDEVNAME=")
	name, _, _ = strings.Cut(name, "\n")
	path := filepath.Join("/dev", name)
	if err := fault("open", path); err != nil {
		return UUID{}, err
	}
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return UUID{}, unix.EACCES
	}
	defer func() { _ = unix.Close(fd) }()
	var st unix.Stat_t
	var super [ext4UUIDAt + len(UUID{})]byte
	if err := unix.Fstat(fd, &st); err != nil || st.Rdev != dev || st.Mode&unix.S_IFMT != unix.S_IFBLK {
		return UUID{}, unix.ENOENT
	}
	if n, err := unix.Pread(fd, super[:], ext4SuperAt); err != nil || n < len(super) {
		return UUID{}, unix.ENOENT
	}
	if super[ext4MagicAt] != unix.EXT4_SUPER_MAGIC&0xff || super[ext4MagicAt+1] != unix.EXT4_SUPER_MAGIC>>8 {
		return UUID{}, unix.EINVAL
	}
	return UUID(super[ext4UUIDAt:]), nil
}

// device returns the device number of an ext3 or ext4. ENOENT: it is an ext2, which leaves s_uuid
// empty, or another one.
func (o *Object) device() (uint64, error) {
	var st unix.Stat_t
	if err := unix.Fstat(o.fd, &st); err != nil {
		return 0, err
	}
	table, err := readHost("/proc/self/mountinfo")
	if err != nil {
		return 0, err
	}
	if fs, ok := findMount(table, st.Dev); !ok || fs.Type != "ext4" && fs.Type != "ext3" {
		return 0, unix.ENOENT
	}
	return st.Dev, nil
}
