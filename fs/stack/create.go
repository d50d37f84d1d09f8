package stack

import (
	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/owner"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
	"github.com/fuse-overlay/fuse-overlay/whiteout"
)

// Object is an object to be made, as it is to look through the mount.
type Object struct {
	Mode     uint32 // type and permissions, the umask not applied
	Umask    uint32 // applied if the directory has no default ACL
	Rdev     uint64
	Target   string // of a symbolic link
	UID, GID uint32
}

// Create makes a new object under a name that is [Absent] or a [Whiteout], in one step. It makes
// the object in place if the name is free and the object gets the requested owner by itself.
// Otherwise it makes the object in the work directory and renames it. Create returns a regular file
// opened, for the caller to close, and nil for any other object. Precondition: up is d's directory
// of the upper.
func (s *Stack) Create(d *Dir, up *sys.Dir, name string, f *Found, obj *Object) (file *sys.File, err error) {
	e := f.entry(up, name)
	o := inheriting{Object: *obj, staged: s.layers[Upper].shown.Overrides() || e.Has != whiteout.Nothing ||
		obj.Mode&unix.S_IFMT == unix.S_IFDIR && f.Below}
	if err := s.inherit(d, up, &o); err != nil {
		return nil, err
	}
	uid, gid := s.stored(&o.Object)
	if !o.staged && uid == s.uid && (gid == s.gid || o.inheritsGID) {
		if file, err = s.make1(up, name, &o.Object); err != nil {
			return nil, err
		}
	} else if file, err = s.createStaged(d, e, &o); err != nil {
		return nil, err
	}
	if f.Marker {
		whiteout.RemoveMarker(up, name)
	}
	d.nowObject(name, o.Mode)
	return file, nil
}

// CreateTmpfile makes an O_TMPFILE file with the attributes of a new entry of d, and returns it
// opened. [Stack.Link] can give it a name. The error is EOPNOTSUPP if the upper's file system has
// no such files. Precondition: up is d's directory of the upper.
func (s *Stack) CreateTmpfile(d *Dir, up *sys.Dir, obj *Object) (*sys.File, error) {
	o := inheriting{Object: *obj, staged: s.layers[Upper].shown.Overrides()}
	if err := s.inherit(d, up, &o); err != nil {
		return nil, err
	}
	uid, gid := s.stored(&o.Object)
	if !o.staged && uid == s.uid && (gid == s.gid || o.inheritsGID) {
		return up.CreateTmpfile(o.Mode & 0o7777)
	}
	file, err := s.work.Dir().CreateTmpfile(s.layers[Upper].shown.Inode(o.Mode) & 0o7777)
	if err != nil {
		return nil, err
	}
	if err := s.setOwner(s.Shown(Upper, file.Ref()), d, &o); err != nil {
		file.Close()
		return nil, err
	}
	return file, nil
}

// stored returns the ids of the object's inode in the upper.
func (s *Stack) stored(o *Object) (uid, gid uint32) {
	uid, gid = s.layers[Upper].shown.Store(o.UID, o.GID)
	if uid == sys.Unchanged {
		uid = s.uid
	}
	if gid == sys.Unchanged {
		gid = s.gid
	}
	return uid, gid
}

// make1 makes an object with one system call. It makes only the inode if an xattr will have owner
// and mode.
func (s *Stack) make1(dir *sys.Dir, name string, o *Object) (*sys.File, error) {
	mode := s.layers[Upper].shown.Inode(o.Mode)
	switch mode & unix.S_IFMT {
	case unix.S_IFREG:
		file, err := dir.CreateFile(name, mode&0o7777)
		if err == nil && o.Mode&unix.S_IFMT != unix.S_IFREG { // it stands for a device, fifo or socket
			file.Close()
			file = nil
		}
		return file, err
	case unix.S_IFDIR:
		return nil, dir.Mkdir(name, mode&0o7777)
	case unix.S_IFLNK:
		return nil, dir.Symlink(o.Target, name)
	default:
		return nil, dir.Mknod(name, mode, o.Rdev)
	}
}

// createStaged makes the whole object in the work directory, and moves it to its name.
func (s *Stack) createStaged(d *Dir, e whiteout.Entry, o *inheriting) (*sys.File, error) {
	tmp := s.work.Name()
	file, err := s.make1(s.work.Dir(), tmp, &o.Object)
	if err != nil {
		return nil, err
	}
	if err = s.setStaged(d, tmp, &e, o); err == nil {
		err = s.whiteouts.Place(tmp, objectOf(o.Mode), e)
	}
	if err != nil {
		if file != nil {
			file.Close()
		}
		_ = s.work.Remove(tmp) // the first error is returned; the next mount sweeps what is left
		return nil, err
	}
	return file, nil
}

// setStaged sets owner, mode and ACLs of a staged object. A directory becomes opaque if a lower
// would show in its place.
func (s *Stack) setStaged(d *Dir, tmp string, e *whiteout.Entry, o *inheriting) error {
	w := s.work.Dir()
	if err := s.setOwner(s.Shown(Upper, w.At(tmp)), d, o); err != nil {
		return err
	}
	if o.Mode&unix.S_IFMT != unix.S_IFDIR || !e.Below {
		return nil
	}
	h, err := w.OpenDir(tmp)
	if err != nil {
		return err
	}
	defer h.Close()
	return s.whiteouts.MakeOpaque(h)
}

// setOwner sets owner, mode and ACLs of an object that no process can reach yet, in an xattr or in
// the inode.
func (s *Stack) setOwner(r owner.Ref, d *Dir, o *inheriting) error {
	recorded, err := r.Record(&sys.Stat{Uid: o.UID, Gid: o.GID, Mode: o.Mode, Rdev: o.Rdev})
	if recorded || err != nil {
		return err
	}
	return s.setInode(r, d, o)
}

// setInode sets owner, mode and ACLs in the inode.
func (s *Stack) setInode(r owner.Ref, d *Dir, o *inheriting) error {
	if uid, gid := s.stored(&o.Object); uid != s.uid || gid != s.gid {
		if err := r.Chown(o.UID, o.GID); err != nil {
			return err
		}
	}
	if o.Mode&unix.S_IFMT == unix.S_IFLNK {
		return nil
	}
	if err := r.Chmod(o.Mode & 0o7777); err != nil { // chown may have cleared suid and sgid
		return err
	}
	return applyDefaultACL(r.Inode(), d.defaultACL, o.Mode)
}

// Link makes a link of the upper's object src under a name that is [Absent] or a [Whiteout].
func (s *Stack) Link(d *Dir, up *sys.Dir, name string, f *Found, src sys.Ref, mode uint32) error {
	if err := s.whiteouts.Link(src, f.entry(up, name)); err != nil {
		return err
	}
	if f.Marker {
		whiteout.RemoveMarker(up, name)
	}
	d.nowObject(name, mode)
	return nil
}
