package view

import (
	"encoding/binary"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// InodeFlags returns the flags of a regular file or a directory that lsattr shows
// (FS_IOC_GETFLAGS). They are 0 for other objects, and if the file system has none.
func (n *Node) InodeFlags() (uint32, error) {
	if !n.IsDir() && !n.IsRegular() {
		return 0, nil
	}
	in := fuse.IoctlIn{InHeader: header(n.id), Cmd: unix.FS_IOC_GETFLAGS}
	var arg [8]byte // the ioctl's number encodes eight bytes, the kernel uses four
	switch err := errorOf(n.view.overlay.Ioctl(nil, &in, nil, &fuse.IoctlOut{}, arg[:])); err {
	case nil:
		return binary.NativeEndian.Uint32(arg[:]), nil
	case unix.ENOTTY, unix.EOPNOTSUPP:
		return 0, nil
	default:
		return 0, err
	}
}
