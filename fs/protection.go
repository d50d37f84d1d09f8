package fs

import (
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/fs/stack"
	"github.com/fuse-overlay/fuse-overlay/internal/owner"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// guard refuses changes of immutable and append-only objects (chattr +i, +a). In a lower the inode
// has these flags, in the upper the attribute overlay.protattr.
//
// The kernel enforces both flags on the inodes of a file system, but no FUSE inode has them. So
// each request that changes an object checks them first. The node's flags cache the result: the
// first change of an object costs two system calls, a lookup or a read none.
type guard struct {
	*access
	writesBack func() bool // the kernel collects writes
}

// protection returns which of flagsProtected hold for n. Preconditions: no directory's mu is held,
// unless flagProtectionKnown is set.
func (g *guard) protection(n *Node) (nodeFlag, error) {
	for {
		flags := n.flags.load()
		if flags&flagProtectionKnown != 0 {
			return flags & flagsProtected, nil
		}
		var found uint32
		p := n.place()
		there, err := g.at(n, &p, func(r owner.Ref) (err error) {
			found, err = g.stack.Protection(p.layer, r.Inode())
			return err
		})
		switch {
		case g.lostName(n, &p, err) || !there:
			continue
		case err != nil:
			return 0, err
		}
		protection := protectionOf(found)
		if n.flags.replace(flags, flags|flagProtectionKnown|protection) {
			return protection, nil
		}
	}
}

// protectionOf translates inode flags of sys.
func protectionOf(inode uint32) (protection nodeFlag) {
	if inode&sys.FlagImmutable != 0 {
		protection |= flagImmutable
	}
	if inode&sys.FlagAppend != 0 {
		protection |= flagAppendOnly
	}
	return protection
}

// setProtection notes what the object is from now on. It also begins a new generation, so that a
// request that has read the flags before cannot put the old protection back.
func (n *Node) setProtection(protection nodeFlag) {
	for {
		flags := n.flags.load()
		now := flags&^flagsProtected | flagProtectionKnown | protection
		if n.flags.replace(flags, now+xattrGeneration) {
			return
		}
	}
}

// mayChange reports EPERM if n is immutable or append-only: for a change of anything but the end of
// its data or its entries.
func (g *guard) mayChange(n *Node) error {
	protection, err := g.protection(n)
	return refuse(protection, err)
}

// mayAddEntry reports EPERM if the directory n takes no new entry.
func (g *guard) mayAddEntry(n *Node) error {
	protection, err := g.protection(n)
	return refuse(protection&flagImmutable, err)
}

// refuse returns err, or EPERM if any flag is set.
func refuse(protection nodeFlag, err error) error {
	if err == nil && protection != 0 {
		err = unix.EPERM
	}
	return err
}

// mayRemoveLocked reports EPERM if the entry must stay in its directory, as the kernel's may_delete
// does after it has found the entry; errNeedsLayers: readForRemoval comes first. Preconditions: p
// is locked, the entry is found.
func (g *guard) mayRemoveLocked(r *removal) error {
	n := r.p.dir.children[r.name]
	switch {
	case n != nil && n.flags.has(flagProtectionKnown):
		protection, err := g.protection(n)
		return refuse(protection, err)
	case r.found.Layer == stack.Upper && r.found.Shared == nil:
		up, err := r.d.upper()
		if err != nil {
			return err
		}
		flags, err := g.stack.Protection(stack.Upper, up.At(r.name))
		return refuse(protectionOf(flags), err)
	case n != nil || !r.flagsKnown:
		return errNeedsLayers
	}
	return refuse(protectionOf(r.flags), nil)
}

// readForRemoval reads from the layers what mayRemoveLocked needs. Preconditions: no directory's mu
// is held.
func (g *guard) readForRemoval(r *removal) error {
	r.p.dir.mu.Lock()
	n := r.p.dir.children[r.name]
	r.p.dir.mu.Unlock()
	if n != nil {
		_, err := g.protection(n)
		return err
	}
	if r.flagsKnown = r.found.Shared != nil; r.flagsKnown || r.found.Layer == stack.Upper {
		return nil // a shared one gets a node before it is removed
	}
	h, err := r.d.Layer(r.found.Layer)
	if err == nil {
		r.flags, err = g.stack.Protection(r.found.Layer, h.At(r.name))
		r.flagsKnown = err == nil
	}
	return err
}

// mayOpen reports EPERM if n must not be opened with these flags of open(2) (may_open of the
// kernel).
func (g *guard) mayOpen(n *Node, flags uint32) error {
	writes := flags&unix.O_ACCMODE != unix.O_RDONLY
	if !writes && flags&unix.O_TRUNC == 0 {
		return nil
	}
	protection, err := g.protection(n)
	if flags&unix.O_TRUNC == 0 && flags&unix.O_APPEND != 0 {
		protection &^= flagAppendOnly
	}
	return refuse(protection, err)
}

// maySetAttr reports EPERM if in changes what n's flags protect (may_setattr of the kernel). The
// times of an append-only file may be set to now. With the writeback cache the kernel itself sends
// the time of last change after an append.
func (g *guard) maySetAttr(n *Node, in *fuse.SetAttrIn) error {
	protection, err := g.protection(n)
	if in.Valid&(fuse.FATTR_SIZE|fuse.FATTR_MODE|fuse.FATTR_UID|fuse.FATTR_GID) == 0 && g.touches(in.Valid) {
		protection &^= flagAppendOnly
	}
	return refuse(protection, err)
}

// touches reports whether a SETATTR sets both times to now, or may do so: with the writeback cache
// the kernel sends the time of last change itself.
func (g *guard) touches(valid uint32) bool {
	switch {
	case valid&fuse.FATTR_ATIME_NOW != 0:
		return valid&fuse.FATTR_MTIME_NOW != 0 || g.writesBack() && valid&fuse.FATTR_MTIME != 0
	case valid&fuse.FATTR_ATIME != 0:
		return false
	}
	return g.writesBack() && valid&(fuse.FATTR_MTIME|fuse.FATTR_CTIME) == fuse.FATTR_MTIME|fuse.FATTR_CTIME
}

// maySetXattr reports EPERM if n must keep its attributes.
func (g *guard) maySetXattr(n *Node, _ string) error { return g.mayChange(n) }

// mayRemoveXattr reports EPERM if n must keep an attribute. The kernel itself removes the
// capabilities of a file that is appended to, before the data comes.
func (g *guard) mayRemoveXattr(n *Node, attr string) error {
	protection, err := g.protection(n)
	if attr == capability {
		protection &^= flagAppendOnly
	}
	return refuse(protection, err)
}

// mayFallocate reports EPERM if n's flags do not allow fallocate in this mode. An append-only file
// allows to reserve space.
func (g *guard) mayFallocate(n *Node, mode uint32) error {
	protection, err := g.protection(n)
	if mode&^uint32(unix.FALLOC_FL_KEEP_SIZE) == 0 {
		protection &^= flagAppendOnly
	}
	return refuse(protection, err)
}

// refusesWrites reports whether writes to n fail before they reach the page cache. With the
// writeback cache a write(2) makes no request. But the kernel first requests the size of
// security.capability, if it does not know that there is none, and removes the attribute
// (file_remove_privs). The error of that removal is the error of write(2).
func (g *guard) refusesWrites(n *Node) bool {
	if !g.writesBack() || n.kind != unix.S_IFREG {
		return false
	}
	protection, err := g.protection(n)
	return err == nil && protection&flagImmutable != 0
}

// capabilitySize is XATTR_CAPS_SZ_2, the size of a security.capability.
const capabilitySize = 20
