package fs

import (
	"math"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/fs/stack"
	"github.com/fuse-overlay/fuse-overlay/internal/owner"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// An object can be immutable or append-only (chattr +i, +a): in a lower by its inode, in the upper by the attribute
// overlay.protattr. The kernel enforces both flags on the inodes of a file system, but no FUSE
// inode has them. So each request that changes an object checks them here first. The node's flags
// cache the result: the first change of an object costs two system calls, a look-up or a read none.

// protection returns those of the bits immutable and appendOnly that hold for n. Precondition: no directory's mu is held, unless
// they are known.
func (o *Overlay) protection(n *Node) (nodeFlags uint32, err error) {
	for {
		flags := n.flags.Load()
		if flags&protectionKnown != 0 {
			return flags & (immutable | appendOnly), nil
		}
		var found uint32
		p := n.place()
		there, err := o.at(n, &p, func(r owner.Ref) (err error) {
			found, err = o.stack.Protection(p.layer, r.Inode())
			return err
		})
		switch {
		case o.lost(n, &p, err) || !there:
			continue
		case err != nil:
			return 0, err
		}
		nodeFlags = protectionBits(found)
		if n.flags.CompareAndSwap(flags, flags|protectionKnown|nodeFlags) {
			return nodeFlags, nil
		}
	}
}

func protectionBits(flags uint32) (nodeFlags uint32) {
	if flags&sys.FlagImmutable != 0 {
		nodeFlags |= immutable
	}
	if flags&sys.FlagAppend != 0 {
		nodeFlags |= appendOnly
	}
	return nodeFlags
}

// setProtection notes what the object is from now on, for readers of an older state too: their CompareAndSwap fails.
func (n *Node) setProtection(nodeFlags uint32) {
	for {
		flags := n.flags.Load()
		now := flags&^(immutable|appendOnly) | protectionKnown | nodeFlags
		if n.flags.CompareAndSwap(flags, now+xattrChange) {
			return
		}
	}
}

// mayChange reports EPERM if n is immutable or append-only: for a change of anything but the end of its data or its entries.
func (o *Overlay) mayChange(n *Node) error {
	protection, err := o.protection(n)
	return cannot(protection, immutable|appendOnly, err)
}

// mayAddEntry reports EPERM if the directory n takes no new entry.
func (o *Overlay) mayAddEntry(n *Node) error {
	protection, err := o.protection(n)
	return cannot(protection, immutable, err)
}

func cannot(protection, those uint32, err error) error {
	if err == nil && protection&those != 0 {
		err = unix.EPERM
	}
	return err
}

// mayRemove reports EPERM if the entry must stay in its directory, as the kernel's may_delete does once it has found it; errAside: only
// after askProtection. Preconditions: those of a removal's f.
func (o *Overlay) mayRemove(r *removal) error {
	n := r.p.dir.children[r.name]
	switch {
	case n != nil && n.flags.Load()&protectionKnown != 0:
		protection, err := o.protection(n)
		return cannot(protection, immutable|appendOnly, err)
	case r.found.Layer == stack.Upper && r.found.Shared == nil:
		up, err := r.d.upper()
		if err != nil {
			return err
		}
		flags, err := o.stack.Protection(stack.Upper, up.At(r.name))
		return cannot(flags, math.MaxUint32, err)
	case n != nil || !r.flagsAsked:
		return errAside
	}
	return cannot(r.flags, math.MaxUint32, nil)
}

// askProtection reads from the layers what mayRemove needs. Precondition: no directory's mu is
// held.
func (o *Overlay) askProtection(r *removal) error {
	r.p.dir.mu.Lock()
	n := r.p.dir.children[r.name]
	r.p.dir.mu.Unlock()
	if n != nil {
		_, err := o.protection(n)
		return err
	}
	if r.flagsAsked = r.found.Shared != nil; r.flagsAsked || r.found.Layer == stack.Upper {
		return nil // a shared one gets a node before it is removed
	}
	h, err := r.d.Layer(r.found.Layer)
	if err == nil {
		r.flags, err = o.stack.Protection(r.found.Layer, h.At(r.name))
		r.flagsAsked = err == nil
	}
	return err
}

// mayOpen reports EPERM if n must not be opened with these flags of open(2) (may_open of the kernel).
func (o *Overlay) mayOpen(n *Node, flags uint32) error {
	writes := flags&unix.O_ACCMODE != unix.O_RDONLY
	if !writes && flags&unix.O_TRUNC == 0 {
		return nil
	}
	protection, err := o.protection(n)
	if flags&unix.O_TRUNC == 0 && flags&unix.O_APPEND != 0 {
		protection &^= appendOnly
	}
	return cannot(protection, immutable|appendOnly, err)
}

// maySetAttr reports EPERM if in changes what n's flags keep as it is (may_setattr of the kernel). The times of an append-only
// file may be set to now. With the writeback cache the kernel itself sends the time of last change that an append has led to.
func (o *Overlay) maySetAttr(n *Node, in *fuse.SetAttrIn) error {
	protection, err := o.protection(n)
	if in.Valid&(fuse.FATTR_SIZE|fuse.FATTR_MODE|fuse.FATTR_UID|fuse.FATTR_GID) == 0 && o.touches(in.Valid) {
		protection &^= appendOnly
	}
	return cannot(protection, immutable|appendOnly, err)
}

// touches reports whether a SETATTR sets both times to now, or may do so: with the writeback cache
// the kernel sends the time of last change itself.
func (o *Overlay) touches(valid uint32) bool {
	switch {
	case valid&fuse.FATTR_ATIME_NOW != 0:
		return valid&fuse.FATTR_MTIME_NOW != 0 || o.writesBack() && valid&fuse.FATTR_MTIME != 0
	case valid&fuse.FATTR_ATIME != 0:
		return false
	}
	return o.writesBack() && valid&(fuse.FATTR_MTIME|fuse.FATTR_CTIME) == fuse.FATTR_MTIME|fuse.FATTR_CTIME
}

// writesBack reports whether the kernel collects writes.
func (o *Overlay) writesBack() bool { return o.policy.Writeback }

// mayChangeXattr reports EPERM if n must keep its attributes. The kernel itself removes the capabilities of a file that is
// appended to, before the data comes.
func (o *Overlay) mayChangeXattr(n *Node, attr string, remove bool) error {
	protection, err := o.protection(n)
	if remove && attr == capability {
		protection &^= appendOnly
	}
	return cannot(protection, immutable|appendOnly, err)
}

// mayFallocate reports EPERM if n's flags do not allow fallocate in this mode: of an append-only file space may be reserved.
func (o *Overlay) mayFallocate(n *Node, mode uint32) error {
	protection, err := o.protection(n)
	if mode&^uint32(unix.FALLOC_FL_KEEP_SIZE) == 0 {
		protection &^= appendOnly
	}
	return cannot(protection, immutable|appendOnly, err)
}
