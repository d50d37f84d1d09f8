package merge

import (
	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/copyup"
	"github.com/fuse-overlay/fuse-overlay/internal/ondisk"
	"github.com/fuse-overlay/fuse-overlay/internal/owner"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
	"github.com/fuse-overlay/fuse-overlay/internal/view"
)

const (
	// protection are the flags that forbid changes.
	protection = sys.FlagImmutable | sys.FlagAppend
	// flags are those that a merge sets.
	flags = protection | sys.FlagSync | sys.FlagNodump | sys.FlagNoatime
)

// attributesOf returns the attributes of an object of a view.
func attributesOf(n *view.Node) (attributes, error) {
	a := attributes{
		Mode: n.Mode, UID: n.UID, GID: n.GID, Rdev: n.Rdev, Times: times{n.Atime, n.Mtime},
	}
	var err error
	if a.Xattrs, err = n.Xattrs(); err != nil {
		return a, err
	}
	a.Flags, err = n.InodeFlags()
	a.Flags &= flags
	return a, err
}

// dresser gives objects of the lower attributes.
type dresser struct {
	names  ondisk.Names
	scheme *owner.Scheme // of the lower
}

// dress gives an object the attributes a. The calls on an object that has an attribute already are
// left out, because they could be refused to this process. Flags come last: then others cannot be
// changed any more.
func (d *dresser) dress(inode sys.Ref, a *attributes) error {
	hasFlags, err := d.loosen(inode, a)
	if err != nil {
		return err
	}
	r := d.scheme.On(inode)
	err = d.setXattrs(r, a, func(name string) bool { return name != ondisk.Capability })
	if err == unix.EACCES && allowWrites(r) == nil {
		err = d.setXattrs(r, a, func(name string) bool { return name != ondisk.Capability })
	}
	if err != nil {
		return err
	}
	if err := d.own(r, a); err != nil {
		return err
	}
	if err := d.setXattrs(r, a, func(name string) bool { return name == ondisk.Capability }); err != nil {
		return err
	}
	err = inode.Utimes(a.Times.Atime, a.Times.Mtime)
	if err == unix.EPERM && a.Mode&unix.S_IFMT == unix.S_IFDIR {
		err = nil // the directory belongs to another user: it keeps the times that the changes in it made
	}
	if err != nil || !hasFlags {
		return err
	}
	return setFlags(inode, flags, a.Flags)
}

// allowWrites gives the owner of an object the permission to write, which attributes of namespace
// user. take. The caller sets the mode afterwards.
func allowWrites(r owner.Ref) error {
	var st sys.Stat
	if err := r.Inode().Stat(&st); err != nil {
		return err
	}
	return r.Inode().Chmod(st.Mode&0o7777 | 0o200)
}

// loosen clears flags that forbid changes. hasFlags is false if the object is of a type, or on a
// file system, that has none.
func (d *dresser) loosen(inode sys.Ref, a *attributes) (hasFlags bool, err error) {
	if kind := a.Mode & unix.S_IFMT; kind != unix.S_IFREG && kind != unix.S_IFDIR {
		return false, nil
	}
	var st sys.Stat
	if err := inode.Stat(&st); err != nil {
		return false, err
	}
	if kind := st.Mode & unix.S_IFMT; kind != unix.S_IFREG && kind != unix.S_IFDIR {
		return false, nil
	}
	now, err := inode.InodeFlags()
	switch err {
	case nil:
	case unix.ENOTTY, unix.EOPNOTSUPP, unix.ENOSYS, unix.EINVAL, unix.EACCES:
		return false, nil
	default:
		return false, err
	}
	if now&protection == 0 {
		return true, nil
	}
	return true, setFlags(inode, protection, 0)
}

// setFlags sets those flags of an object that are in mask.
func setFlags(inode sys.Ref, mask, want uint32) error {
	now, err := inode.InodeFlags()
	if err != nil || now&mask == want&mask {
		return err
	}
	return inode.SetInodeFlags(now&^mask | want&mask)
}

// own sets owner and mode.
func (d *dresser) own(r owner.Ref, a *attributes) error {
	var st sys.Stat
	if err := r.Stat(&st); err != nil {
		return err
	}
	if st.Uid != a.UID || st.Gid != a.GID {
		if err := r.Chown(a.UID, a.GID); err != nil {
			return err
		}
		if err := r.Stat(&st); err != nil { // chown has cleared set-user-id
			return err
		}
	}
	if a.Mode&unix.S_IFMT == unix.S_IFLNK || st.Mode&0o7777 == a.Mode&0o7777 {
		return nil
	}
	return r.Chmod(a.Mode & 0o7777)
}

// setXattrs makes those extended attributes of an object that are chosen by name the ones of a. It
// leaves the overlay's own, and the labels of security modules that a does not have.
func (d *dresser) setXattrs(r owner.Ref, a *attributes, chosen func(name string) bool) error {
	onDisk, err := r.ListXattr()
	if err != nil {
		return err
	}
	for _, stored := range onDisk {
		name, visible := d.names.Visible(stored)
		if _, wanted := a.Xattrs[name]; wanted || !visible || !chosen(name) || copyup.IsLabel(name) {
			continue
		}
		if err := r.RemoveXattr(stored); err != nil && err != unix.ENODATA {
			return err
		}
	}
	for name, value := range a.Xattrs {
		stored, ok := d.names.Stored(name)
		if !ok || !chosen(name) {
			continue
		}
		if now, err := r.GetXattr(stored); err == nil && string(now) == value {
			continue
		}
		if err := copyup.SetXattr(r, stored, []byte(value)); err != nil {
			return err
		}
	}
	return nil
}

// strip removes the overlay's own attributes of an object that comes from the upper, except for
// those in which the lower keeps owner and mode.
func (d *dresser) strip(inode sys.Ref) error {
	onDisk, err := inode.ListXattr()
	if err != nil {
		return err
	}
	for _, name := range onDisk {
		if !d.names.Private(name) || d.scheme.Keeps(name) {
			continue
		}
		if err := inode.RemoveXattr(name); err != nil && err != unix.ENODATA {
			return err
		}
	}
	return nil
}
