package fs

import (
	"strings"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/ondisk"
	"github.com/fuse-overlay/fuse-overlay/internal/owner"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

const (
	selinuxXattr  = ondisk.SELinux
	capability    = ondisk.Capability
	defaultACL    = ondisk.DefaultACL
	accessACL     = ondisk.AccessACL
	errNoSuchAttr = fuse.Status(unix.ENODATA)
	errNoXattrs   = fuse.ENOSYS // the kernel then says EOPNOTSUPP by itself, and asks no more
)

// GetXAttr answers GETXATTR.
func (o *Overlay) GetXAttr(_ <-chan struct{}, h *fuse.InHeader, attr string, dest []byte) (uint32, fuse.Status) {
	if o.cfg.NoXattrs {
		return 0, errNoXattrs
	}
	if o.cfg.NoACL && isACL(attr) {
		return 0, fuse.Status(unix.EOPNOTSUPP)
	}
	if attr == selinuxXattr && !o.selinux {
		return 0, errNoSuchAttr // coreutils asks it of every file, and the kernel cannot keep the answer
	}
	stored, ok := o.names.Stored(attr)
	if !ok {
		return 0, errNoSuchAttr
	}
	n, err := o.node(h.NodeId)
	if err != nil {
		return 0, o.status("getxattr", err)
	}
	if attr == capability && len(dest) == 0 && o.refusesWrites(n) {
		return capabilitySize, fuse.ERANGE
	}
	flags := n.flags.Load()
	if attr == capability && flags&bare != 0 || flags&plain != 0 && inEveryList(attr) {
		return 0, errNoSuchAttr // the kernel asks before the first write of every file, and podman of every file
	}
	var value []byte
	none := false
	err = o.with(n, func(r owner.Ref) (err error) {
		// Most objects have none at all, which the list tells for the next question as well. With SELinux every file has one.
		if none = inEveryList(attr) && !o.selinux && o.showsNoXattr(r); none {
			return unix.ENODATA
		}
		value, err = r.GetXattr(stored)
		return err
	})
	if none && !o.cfg.LayersChange {
		n.notePlain(flags)
	}
	if err != nil {
		return 0, o.status("getxattr", err)
	}
	return give(dest, value)
}

// inEveryList reports whether every file system has an attribute that exists in its list. Those of other namespaces may be made up
// when they are asked for.
func inEveryList(attr string) bool {
	namespace, _, _ := strings.Cut(attr, ".")
	switch namespace {
	case "user", "trusted", "security":
		return true
	}
	return isACL(attr)
}

// notePlain remembers that n has no attribute that is shown, but not if one was set since its flags were read: that counts in
// them.
func (n *Node) notePlain(flags uint32) { n.flags.CompareAndSwap(flags, flags|plain) }

// showsNoXattr reports whether an object has no attribute that is shown.
func (o *Overlay) showsNoXattr(r owner.Ref) bool {
	names, err := r.ListXattr()
	return err == nil && names != nil && len(o.shownXattrs(names)) == 0
}

// shownXattrs is the list of attributes as LISTXATTR tells it, by their names on disk.
func (o *Overlay) shownXattrs(names []string) []byte {
	var list []byte
	for _, name := range names {
		shown, ok := o.names.Visible(name)
		if !ok || shown == selinuxXattr && !o.selinux || o.cfg.NoACL && isACL(shown) {
			continue
		}
		list = append(append(list, shown...), 0)
	}
	return list
}

// give copies a value out; the kernel asks for the size alone by an empty buffer.
func give(dest, value []byte) (uint32, fuse.Status) {
	if len(value) > len(dest) {
		return uint32(len(value)), fuse.ERANGE
	}
	return uint32(copy(dest, value)), fuse.OK
}

// ListXAttr answers LISTXATTR.
func (o *Overlay) ListXAttr(_ <-chan struct{}, h *fuse.InHeader, dest []byte) (uint32, fuse.Status) {
	if o.cfg.NoXattrs {
		return 0, errNoXattrs
	}
	n, err := o.node(h.NodeId)
	if err != nil {
		return 0, o.status("listxattr", err)
	}
	if n.flags.Load()&plain != 0 {
		return give(dest, nil)
	}
	var names []string
	err = o.with(n, func(r owner.Ref) (err error) { names, err = r.ListXattr(); return err })
	if err != nil {
		return 0, o.status("listxattr", err)
	}
	return give(dest, o.shownXattrs(names))
}

func isACL(name string) bool { return name == accessACL || name == defaultACL }

// changeXattr calls f on n's object in the upper with the name under which the attribute is stored there.
func (o *Overlay) changeXattr(id uint64, attr string, remove bool, f func(r owner.Ref, stored string) error) error {
	if o.cfg.NoXattrs || o.cfg.NoACL && isACL(attr) {
		return unix.EOPNOTSUPP
	}
	stored, ok := o.names.Stored(attr)
	if !ok {
		return unix.EPERM
	}
	n, err := o.node(id)
	if err != nil {
		return err
	}
	if err := o.mayChangeXattr(n, attr, remove); err != nil {
		return err
	}
	if attr == capability {
		n.flags.And(^uint32(bare))
	}
	err = o.change(n, func(r owner.Ref) error { return f(r, stored) })
	n.flags.Add(xattrChange) // also after an error, behind which the attribute may have been set
	n.flags.And(^uint32(plain))
	if err != nil {
		return err
	}
	if attr == defaultACL && n.dir != nil {
		n.dir.mu.Lock()
		n.dir.ForgetDefaultACL()
		n.dir.mu.Unlock()
	}
	return nil
}

// SetXAttr answers SETXATTR.
func (o *Overlay) SetXAttr(_ <-chan struct{}, in *fuse.SetXAttrIn, attr string, data []byte) fuse.Status {
	err := o.changeXattr(in.NodeId, attr, false, func(r owner.Ref, stored string) error {
		if err := r.SetXattr(stored, data, int(in.Flags)); err != nil {
			return err
		}
		if in.SetXAttrFlags&fuse.SETXATTR_ACL_KILL_SGID == 0 {
			return nil
		}
		var st sys.Stat
		if err := r.Stat(&st); err != nil || st.Mode&unix.S_ISGID == 0 {
			return err
		}
		return r.Chmod(st.Mode & 0o7777 &^ unix.S_ISGID)
	})
	return o.status("setxattr", err)
}

// RemoveXAttr answers REMOVEXATTR. An attribute that is not there is no reason to copy a file up.
func (o *Overlay) RemoveXAttr(_ <-chan struct{}, h *fuse.InHeader, attr string) fuse.Status {
	n, err := o.node(h.NodeId)
	if err == nil {
		err = o.mayChangeXattr(n, attr, true)
	}
	if err == nil && !n.inUpper() {
		if stored, ok := o.names.Stored(attr); ok {
			err = o.with(n, func(r owner.Ref) error { _, err := r.GetXattr(stored); return err })
		}
	}
	if err == nil {
		err = o.changeXattr(h.NodeId, attr, true, func(r owner.Ref, stored string) error { return r.RemoveXattr(stored) })
	}
	return o.status("removexattr", err)
}
