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
	errNoXattrs   = fuse.ENOSYS // the kernel then returns EOPNOTSUPP by itself, and sends no more requests
)

// GetXAttr answers GETXATTR.
func (o *Overlay) GetXAttr(_ <-chan struct{}, h *fuse.InHeader, attr string, dest []byte) (uint32, fuse.Status) {
	if o.cfg.NoXattrs || o.quiet.noValues.Load() {
		return 0, errNoXattrs
	}
	size, status := o.getXattr(h, attr, dest)
	if attr == capability && status == errNoSuchAttr && o.quiet.noteNoCapability(h.NodeId) {
		go o.searchXattrs()
	}
	return size, status
}

func (o *Overlay) getXattr(h *fuse.InHeader, attr string, dest []byte) (uint32, fuse.Status) {
	if o.cfg.NoACL && isACL(attr) {
		return 0, fuse.Status(unix.EOPNOTSUPP)
	}
	if attr == selinuxXattr && !o.selinux {
		return 0, errNoSuchAttr // ls requests it for every file, and the kernel cannot keep the answer
	}
	stored, ok := o.names.Stored(attr)
	if !ok {
		return 0, errNoSuchAttr
	}
	n, err := o.node(h.NodeId)
	if err != nil {
		return 0, o.status("getxattr", err)
	}
	if attr == capability && len(dest) == 0 && o.guard.refusesWrites(n) {
		return capabilitySize, fuse.ERANGE
	}
	flags := n.flags.load()
	if attr == capability && flags&flagNoCapability != 0 || flags&flagNoXattrs != 0 && inEveryList(attr) {
		return 0, errNoSuchAttr // requested before the first write to a file, and by podman for every file
	}
	if o.quiet.hasNone(n, attr) {
		return 0, errNoSuchAttr
	}
	var value []byte
	none := false
	err = o.with(n, func(r owner.Ref) (err error) {
		// Most objects have none, and the list answers the next GETXATTR as well. With SELinux every file
		// has one.
		if none = inEveryList(attr) && !o.selinux && o.showsNoXattr(r); none {
			return unix.ENODATA
		}
		value, err = r.GetXattr(stored)
		return err
	})
	if none && !o.cfg.LayersChange {
		n.noteNoXattrs(flags)
	}
	if err != nil {
		return 0, o.status("getxattr", err)
	}
	return copyOut(dest, value)
}

// inEveryList reports whether a file system lists an attribute if it has it. File systems may make
// up attributes of other namespaces.
func inEveryList(attr string) bool {
	namespace, _, _ := strings.Cut(attr, ".")
	switch namespace {
	case "user", "trusted", "security":
		return true
	}
	return isACL(attr)
}

// noteNoXattrs remembers that n has no attribute that is shown, unless one was set since its flags
// were read.
func (n *Node) noteNoXattrs(flags nodeFlag) { n.flags.replace(flags, flags|flagNoXattrs) }

// showsNoXattr reports whether an object has no attribute that is shown.
func (o *Overlay) showsNoXattr(r owner.Ref) bool {
	names, err := r.ListXattr()
	return err == nil && names != nil && len(o.shownXattrs(names)) == 0
}

// shownXattrs returns the list for LISTXATTR. names are those on disk.
func (o *Overlay) shownXattrs(names []string) []byte {
	var list []byte
	for _, name := range names {
		if shown, ok := o.shownXattr(name); ok && (shown != selinuxXattr || o.selinux) {
			list = append(append(list, shown...), 0)
		}
	}
	return list
}

// shownXattr returns the name under which the mount shows an attribute; ok is false if it shows
// none. A label of SELinux (security.selinux) counts as shown.
func (o *Overlay) shownXattr(onDisk string) (shown string, ok bool) {
	shown, ok = o.names.Visible(onDisk)
	return shown, ok && !(o.cfg.NoACL && isACL(shown))
}

// copyOut copies a value out. With an empty buffer the kernel requests the size alone.
func copyOut(dest, value []byte) (uint32, fuse.Status) {
	if len(value) > len(dest) {
		return uint32(len(value)), fuse.ERANGE
	}
	return uint32(copy(dest, value)), fuse.OK
}

// ListXAttr answers LISTXATTR.
func (o *Overlay) ListXAttr(_ <-chan struct{}, h *fuse.InHeader, dest []byte) (uint32, fuse.Status) {
	if o.cfg.NoXattrs || o.quiet.noLists.Load() {
		return 0, errNoXattrs
	}
	list, err := o.listXattrs(h.NodeId)
	if err != nil {
		return 0, o.status("listxattr", err)
	}
	if len(list) == 0 {
		o.quiet.noteEmptyList(h.NodeId)
	}
	return copyOut(dest, list)
}

func (o *Overlay) listXattrs(id uint64) ([]byte, error) {
	n, err := o.node(id)
	if err != nil || n.flags.has(flagNoXattrs) || !o.selinux && o.quiet.hasNone(n, capability) {
		return nil, err
	}
	var names []string
	err = o.with(n, func(r owner.Ref) (err error) { names, err = r.ListXattr(); return err })
	return o.shownXattrs(names), err
}

func isACL(name string) bool { return name == accessACL || name == defaultACL }

// changeXattr calls f on n's object in the upper with the name of the attribute there. may checks
// whether n's flags allow it.
func (o *Overlay) changeXattr(id uint64, attr string, may func(*Node, string) error,
	f func(r owner.Ref, stored string) error) error {
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
	if err := may(n, attr); err != nil {
		return err
	}
	if attr == capability {
		n.flags.clear(flagNoCapability)
	}
	err = o.change(n, func(r owner.Ref) error { return f(r, stored) })
	n.flags.xattrsChanged() // also after an error, which may come after the change
	n.flags.clear(flagNoXattrs)
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
	err := o.changeXattr(in.NodeId, attr, o.guard.maySetXattr, func(r owner.Ref, stored string) error {
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
		err = o.guard.mayRemoveXattr(n, attr)
	}
	if err == nil && !n.inUpper() {
		if stored, ok := o.names.Stored(attr); ok {
			err = o.with(n, func(r owner.Ref) error { _, err := r.GetXattr(stored); return err })
		}
	}
	if err == nil {
		err = o.changeXattr(h.NodeId, attr, o.guard.mayRemoveXattr, owner.Ref.RemoveXattr)
	}
	return o.status("removexattr", err)
}
