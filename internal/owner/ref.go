package owner

import (
	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// Ref is an object of a layer with the layer's scheme. Owner, mode, type, device number and
// extended attributes are those that the mount shows. The rest is that of the inode.
type Ref struct {
	sys.Ref
	scheme *Scheme
}

// Inode returns the object without the scheme.
func (r Ref) Inode() sys.Ref { return r.Ref }

// Stat fills st. EIO: the attribute with owner and mode is invalid.
func (r Ref) Stat(st *sys.Stat) error {
	if err := r.Ref.Stat(st); err != nil || r.scheme == nil {
		return err
	}
	return r.scheme.show(r.Ref, st)
}

// form returns the override that the object can have, and fills st from its inode; nil if it can
// have none.
func (r Ref) form(st *sys.Stat) (*Override, error) {
	if !r.scheme.Overrides() {
		return nil, nil
	}
	if err := r.Ref.Stat(st); err != nil {
		return nil, err
	}
	if !r.scheme.form.on(st.Mode) {
		return nil, nil
	}
	return r.scheme.form, nil
}

// Chown sets owner and group; [sys.Unchanged] leaves one. If the object is a symbolic link that
// cannot have an override, and the file system refuses, Chown returns nil. No permission depends on
// the owner of a symbolic link, and chown -R would report an error.
func (r Ref) Chown(uid, gid uint32) error {
	uid, gid = r.scheme.Store(uid, gid)
	if uid == sys.Unchanged && gid == sys.Unchanged {
		return nil
	}
	if !r.scheme.Overrides() {
		return r.Ref.Chown(uid, gid)
	}
	var st sys.Stat
	form, err := r.form(&st)
	if err != nil {
		return err
	}
	if form == nil {
		err := r.Ref.Chown(uid, gid)
		if err == unix.EPERM || err == unix.EINVAL {
			return nil
		}
		return err
	}
	return r.rewrite(&st, func() {
		if uid != sys.Unchanged {
			st.Uid = uid
		}
		if gid != sys.Unchanged {
			st.Gid = gid
		}
		if st.Mode&unix.S_IFMT == unix.S_IFDIR {
			return
		}
		st.Mode &^= unix.S_ISUID // as in the kernel (setattr_should_drop_suidgid)
		if st.Mode&unix.S_IXGRP != 0 {
			st.Mode &^= unix.S_ISGID
		}
	})
}

// Chmod sets the permission bits (07777).
func (r Ref) Chmod(mode uint32) error {
	var st sys.Stat
	form, err := r.form(&st)
	if err != nil {
		return err
	}
	if form == nil {
		return r.Ref.Chmod(mode)
	}
	return r.rewrite(&st, func() { st.Mode = st.Mode&unix.S_IFMT | mode&0o7777 })
}

// rewrite reads the override into st, calls change, and writes st back as the override.
// Precondition: st is that of the inode.
func (r Ref) rewrite(st *sys.Stat, change func()) error {
	disk := Scheme{form: r.scheme.form}
	if err := disk.show(r.Ref, st); err != nil {
		return err
	}
	change()
	return r.Ref.SetXattr(r.scheme.form.attr, format(st), 0)
}

// Record writes owner, mode, type and device number of st to the override of a new object. recorded
// is false if the object has none: then the caller uses Chown and Chmod. Precondition: no process
// can reach the object.
func (r Ref) Record(st *sys.Stat) (recorded bool, err error) {
	var inode sys.Stat
	form, err := r.form(&inode)
	if form == nil || err != nil {
		return false, err
	}
	what := sys.Stat{Mode: st.Mode, Rdev: st.Rdev}
	if what.Uid, what.Gid = r.scheme.Store(st.Uid, st.Gid); what.Uid == sys.Unchanged {
		what.Uid = inode.Uid
	}
	if what.Gid == sys.Unchanged {
		what.Gid = inode.Gid
	}
	return true, r.Ref.SetXattr(form.attr, format(&what), 0)
}

// GetXattr returns the value of an extended attribute. ENODATA: there is none.
func (r Ref) GetXattr(name string) ([]byte, error) {
	if r.scheme == nil {
		return r.Ref.GetXattr(name)
	}
	stored, err := r.stored(name, unix.ENODATA)
	if err != nil {
		return nil, err
	}
	value, err := r.Ref.GetXattr(stored)
	if err == nil && r.scheme.ids != nil {
		value = translate(name, value, r.scheme.ids.show)
	}
	return value, err
}

// SetXattr sets an extended attribute; flags are XATTR_CREATE or XATTR_REPLACE. EPERM: the name is
// one of the scheme.
func (r Ref) SetXattr(name string, value []byte, flags int) error {
	if r.scheme == nil {
		return r.Ref.SetXattr(name, value, flags)
	}
	stored, err := r.stored(name, unix.EPERM)
	if err != nil {
		return err
	}
	if r.scheme.ids != nil {
		value = translate(name, value, r.scheme.ids.store)
	}
	return r.Ref.SetXattr(stored, value, flags)
}

// RemoveXattr removes an extended attribute. ENODATA: there is none.
func (r Ref) RemoveXattr(name string) error {
	stored, err := r.stored(name, unix.ENODATA)
	if err != nil {
		return err
	}
	return r.Ref.RemoveXattr(stored)
}

// ListXattr returns the names of all extended attributes that the mount shows; nil if the inode has
// none.
func (r Ref) ListXattr() ([]string, error) {
	names, err := r.Ref.ListXattr()
	if err != nil || len(names) == 0 || !r.scheme.Overrides() {
		return names, err
	}
	var st sys.Stat
	form, err := r.form(&st)
	if form == nil || err != nil {
		return names, err
	}
	shown := []string{}
	for _, name := range names {
		if name, ok := form.shown(name); ok {
			shown = append(shown, name)
		}
	}
	return shown, nil
}

// stored returns the name under which the layer stores an attribute of the object. It returns
// refusal for a name of the scheme. An object that cannot have an override has its attributes under
// their own names.
func (r Ref) stored(name string, refusal unix.Errno) (onDisk string, err error) {
	if !r.scheme.Overrides() {
		return name, nil
	}
	onDisk, ok := r.scheme.form.stored(name)
	if !ok {
		return "", refusal
	}
	if onDisk != name {
		var st sys.Stat
		if form, err := r.form(&st); form == nil || err != nil {
			return name, err
		}
	}
	return onDisk, nil
}
