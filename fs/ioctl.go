package fs

import (
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// Inode flag ioctls of linux/fs.h; every other one is ENOTTY.
const (
	fsIocGetFlags   = 0x80086601
	fsIocSetFlags   = 0x40086602
	fsIocFsgetxattr = 0x801c581f
	fsIocFssetxattr = 0x401c5820
)

// Ioctl answers IOCTL for lsattr and chattr.
func (o *Overlay) Ioctl(_ <-chan struct{}, in *fuse.IoctlIn, inbuf []byte, _ *fuse.IoctlOut, outbuf []byte) fuse.Status {
	o.counts.add(opIoctl)
	n, err := o.node(in.NodeId)
	if err != nil {
		return o.status("ioctl", err)
	}
	switch in.Cmd {
	case fsIocGetFlags, fsIocFsgetxattr:
		err = o.flags(n, in.Cmd, outbuf)
	case fsIocSetFlags, fsIocFssetxattr:
		err = o.setFlags(n, in.Cmd, inbuf)
	default:
		err = unix.ENOTTY
	}
	return o.status("ioctl", err)
}

func (o *Overlay) setFlags(n *Node, cmd uint32, arg []byte) error {
	if err := o.copyUp(n, noData); err != nil {
		return err
	}
	return o.flags(n, cmd, append([]byte(nil), arg...))
}

// flags makes the call on the object's own descriptor. The kernel's numbers say eight bytes for the first two commands
// and mean four; the argument is padded for that.
func (o *Overlay) flags(n *Node, cmd uint32, arg []byte) error {
	padded := arg
	if len(arg) < 8 {
		padded = make([]byte, 8)
		copy(padded, arg)
		defer func() { copy(arg, padded) }()
	}
	switch n.kind {
	case unix.S_IFDIR:
		o.renameMu.RLock()
		defer o.renameMu.RUnlock()
		d := o.open(n)
		defer d.release()
		h, err := d.Layer(n.place().layer)
		if err != nil {
			return err
		}
		return h.Flags(cmd, padded)
	case unix.S_IFREG:
		file, err := o.ownFile(n, useRead)
		if err != nil {
			return err
		}
		defer file.Close()
		return file.Flags(cmd, padded)
	}
	return unix.ENOTTY
}
