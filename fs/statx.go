package fs

import (
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/owner"
)

// Statx answers STATX. Linux 6.6 sends it if a process requests a time of birth that the kernel
// does not have. The kernel keeps the answer for the life of the inode, and sends GETATTR for
// everything else. If a layer's file system keeps no such times, the answer is ENOSYS: otherwise
// the kernel would send one more request for each statx(2). After ENOSYS it sends GETATTR alone.
func (o *Overlay) Statx(_ <-chan struct{}, in *fuse.StatxIn, out *fuse.StatxOut) fuse.Status {
	o.counts.add(opStatx)
	if o.births.Do(func() { o.hasBirths = o.stack.HasBirthTimes() }); !o.hasBirths {
		return fuse.ENOSYS
	}
	n, err := o.node(in.NodeId)
	if err == nil {
		err = o.statxOut(n, out)
	}
	return o.status("statx", err)
}

// statxOut fills a reply with n's attributes and its time of birth.
func (o *Overlay) statxOut(n *Node, out *fuse.StatxOut) error {
	var a fuse.AttrOut
	if err := o.attrOut(n, &a); err != nil {
		return err
	}
	var birth unix.StatxTimestamp
	known := false
	err := o.with(n, func(r owner.Ref) (err error) { birth, known, err = r.Inode().BirthTime(); return err })
	if err != nil {
		return err
	}
	out.AttrValid, out.AttrValidNsec = a.AttrValid, a.AttrValidNsec
	rdev := libcDev(a.Rdev)
	out.Statx = fuse.Statx{
		Mask: unix.STATX_BASIC_STATS, Blksize: a.Blksize, Nlink: a.Nlink, Uid: a.Uid, Gid: a.Gid, Mode: uint16(a.Mode), Ino: a.Ino,
		Size: a.Size, Blocks: a.Blocks, RdevMajor: unix.Major(rdev), RdevMinor: unix.Minor(rdev),
		Atime: fuse.SxTime{Sec: a.Atime, Nsec: a.Atimensec},
		Mtime: fuse.SxTime{Sec: a.Mtime, Nsec: a.Mtimensec},
		Ctime: fuse.SxTime{Sec: a.Ctime, Nsec: a.Ctimensec},
	}
	if known {
		out.Mask |= unix.STATX_BTIME
		out.Btime = fuse.SxTime{Sec: uint64(birth.Sec), Nsec: birth.Nsec}
	}
	return nil
}
