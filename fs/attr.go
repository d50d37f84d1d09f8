package fs

import (
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/fs/stack"
	"github.com/fuse-overlay/fuse-overlay/internal/owner"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// GetAttr answers GETATTR.
func (o *Overlay) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	n, err := o.node(in.NodeId)
	if err == nil {
		o.refresh(n)
		err = o.attrOut(n, out)
	}
	return o.status("getattr", err)
}

// attrOut fills a reply with n's attributes as they are now.
func (o *Overlay) attrOut(n *Node, out *fuse.AttrOut) error {
	var st sys.Stat
	err := o.with(n, func(r owner.Ref) error {
		return n.stat(r, &st)
	})
	if err != nil {
		return err
	}
	if err := o.attr(n, &st, &out.Attr); err != nil {
		return err
	}
	out.SetTimeout(o.attrTimeout(n, out.Mode))
	return nil
}

// attrTimeout is how long the kernel may keep n's attributes, of which mode is one.
func (o *Overlay) attrTimeout(n *Node, mode uint32) time.Duration {
	switch unseen := n.flags.load(); {
	case unseen&(flagUnseenMappings|flagSplit) != 0, unseen&flagUnseenWrites != 0 && dropsPrivileges(mode):
		return 0
	}
	return o.policy.Timeout
}

// entry fills in the reply that gives the kernel a reference on n. After an error entry takes the
// reference back. Preconditions: no directory's mu is held.
func (o *Overlay) entry(n *Node, st *sys.Stat, out *fuse.EntryOut) error {
	if err := o.attr(n, st, &out.Attr); err != nil {
		o.forgetOne(n)
		return err
	}
	o.entryTimeouts(n, out)
	return nil
}

func (o *Overlay) entryTimeouts(n *Node, out *fuse.EntryOut) {
	out.NodeId, out.Generation = n.ID(), 1
	out.SetEntryTimeout(o.policy.Timeout)
	out.SetAttrTimeout(o.attrTimeout(n, out.Mode))
}

// attr translates the attributes that a layer has of n to those that the mount shows.
func (o *Overlay) attr(n *Node, st *sys.Stat, a *fuse.Attr) error {
	p := n.place()
	links := uint32(st.Nlink)
	switch {
	case p.unlinked && (n.dir != nil || p.layer != stack.Upper):
		links = 0
	case n.dir != nil:
		var err error
		if links, err = o.dirLinks(n, st); err != nil {
			return err
		}
	}
	blocks := st.Blocks
	if p.data != nil {
		blocks = p.data.Blocks
	}
	*a = fuse.Attr{
		Ino:       n.ino.Load(),
		Size:      uint64(st.Size),
		Blocks:    uint64(blocks),
		Atime:     uint64(st.Atim.Sec),
		Atimensec: uint32(st.Atim.Nsec),
		Mtime:     uint64(st.Mtim.Sec),
		Mtimensec: uint32(st.Mtim.Nsec),
		Ctime:     uint64(st.Ctim.Sec),
		Ctimensec: uint32(st.Ctim.Nsec),
		Mode:      st.Mode,
		Nlink:     links,
		Owner:     fuse.Owner{Uid: st.Uid, Gid: st.Gid},
		Rdev:      kernelDev(st.Rdev),
		Blksize:   uint32(st.Blksize),
	}
	return nil
}

// dirLinks returns a directory's link count: its subdirectories, "." and its own name. The count of
// a single layer is that already (or 1 where the file system does not count). Where layers merge,
// the name table counts.
func (o *Overlay) dirLinks(n *Node, st *sys.Stat) (uint32, error) {
	if o.cfg.StaticNlink {
		return 1, nil
	}
	n.dir.mu.Lock()
	merges := n.dir.MayMerge()
	n.dir.mu.Unlock()
	if !merges {
		return uint32(st.Nlink), nil
	}
	if err := o.lockLoaded(n, stack.ToLookUp); err != nil {
		return 0, err
	}
	defer n.dir.mu.Unlock()
	switch {
	case !n.dir.MayMerge():
		return uint32(st.Nlink), nil
	case o.cfg.LayersChange:
		return 1, nil // a count would need a new listing for every GETATTR
	}
	return uint32(n.dir.Subdirs()) + 2, nil
}

// kernelDev is new_encode_dev of linux/kdev_t.h: the form of a device number in FUSE messages.
func kernelDev(dev uint64) uint32 {
	major, minor := unix.Major(dev), unix.Minor(dev)
	return minor&0xff | major<<8 | minor&^0xff<<12
}

// LibcDev returns the device number of stat(2) for one of a FUSE message, the reverse of kernelDev.
func LibcDev(dev uint32) uint64 {
	return unix.Mkdev(dev>>8&0xfff, dev&0xff|dev>>12&0xfff00)
}

// Statx answers STATX. Linux 6.6 sends it if a process requests a time of birth that the kernel
// does not have. The kernel keeps the answer for the life of the inode, and sends GETATTR for
// everything else. If a layer's file system keeps no such times, the answer is ENOSYS: otherwise
// the kernel would send one more request for each statx(2). After ENOSYS it sends GETATTR alone.
func (o *Overlay) Statx(_ <-chan struct{}, in *fuse.StatxIn, out *fuse.StatxOut) fuse.Status {
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
	rdev := LibcDev(a.Rdev)
	out.Statx = fuse.Statx{
		Mask: unix.STATX_BASIC_STATS, Blksize: a.Blksize, Nlink: a.Nlink, Uid: a.Uid, Gid: a.Gid,
		Mode: uint16(a.Mode), Ino: a.Ino,
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

// StatFs answers STATFS with the values of the topmost layer.
func (o *Overlay) StatFs(_ <-chan struct{}, _ *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	var st unix.Statfs_t
	if err := o.stack.Root(o.root.place().layer).Ref().Statfs(&st); err != nil {
		return o.status("statfs", err)
	}
	*out = fuse.StatfsOut{
		Blocks: st.Blocks, Bfree: st.Bfree, Bavail: st.Bavail, Files: st.Files, Ffree: st.Ffree,
		Bsize: uint32(st.Bsize), Frsize: uint32(st.Frsize), NameLen: uint32(st.Namelen),
	}
	return fuse.OK
}
