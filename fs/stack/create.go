package stack

import (
	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/owner"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
	"github.com/fuse-overlay/fuse-overlay/whiteout"
)

// Object says what to make, and whose it is to be, in terms of the mount.
type Object struct {
	Mode     uint32 // type and permissions, the umask not applied
	Umask    uint32 // applied where the directory has no default ACL
	Rdev     uint64
	Target   string // of a symbolic link
	UID, GID uint32
}

// Create makes a new object under a name that is [Absent] or a [Whiteout], in one step: in place when it gets the owner
// it should have by itself and nothing is in the way, else made in the work directory and renamed. A regular file is
// returned opened, and the caller closes it; file is nil for all else. Precondition: up is d's directory of the upper.
func (s *Stack) Create(d *Dir, up *sys.Dir, name string, f *Found, obj *Object) (file *sys.File, err error) {
	o := inheriting{Object: *obj}
	e := f.entry(up, name)
	inPlace := e.Has == whiteout.Nothing && !(o.Mode&unix.S_IFMT == unix.S_IFDIR && f.Below) && !s.layers[Upper].shown.Overrides()
	if err := s.inherit(d, up, &o, inPlace); err != nil {
		return nil, err
	}
	uid, gid := s.stored(&o.Object)
	if inPlace && uid == s.uid && (gid == s.gid || o.inheritsGID) {
		if file, err = s.make1(up, name, &o.Object); err != nil {
			return nil, err
		}
	} else if file, err = s.createStaged(d, e, &o); err != nil {
		return nil, err
	}
	if f.Marker {
		whiteout.RemoveMarker(up, name)
	}
	d.note(name, o.Mode)
	return file, nil
}

// CreateTmpfile makes a regular file without a name that is like an entry of d, opened, which [Stack.Link] can give a name.
// EOPNOTSUPP where the upper's file system has no such files. Precondition: up is d's directory of the upper.
func (s *Stack) CreateTmpfile(d *Dir, up *sys.Dir, obj *Object) (*sys.File, error) {
	o := inheriting{Object: *obj}
	inPlace := !s.layers[Upper].shown.Overrides()
	if err := s.inherit(d, up, &o, inPlace); err != nil {
		return nil, err
	}
	uid, gid := s.stored(&o.Object)
	if inPlace && uid == s.uid && (gid == s.gid || o.inheritsGID) {
		return up.CreateTmpfile(o.Mode & 0o7777)
	}
	file, err := s.work.Dir().CreateTmpfile(s.layers[Upper].shown.Inode(o.Mode) & 0o7777)
	if err != nil {
		return nil, err
	}
	if err := s.describe(s.Shown(Upper, file.Ref()), d, &o); err != nil {
		file.Close()
		return nil, err
	}
	return file, nil
}

// stored are the ids that the upper keeps for the object's.
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

// make1 makes an object with one system call: its inode, where an attribute will say the rest.
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

// createStaged makes the object in the work directory, whole, and moves it to its place.
func (s *Stack) createStaged(d *Dir, e whiteout.Entry, o *inheriting) (*sys.File, error) {
	w, tmp := s.work.Dir(), s.work.Name()
	file, err := s.make1(w, tmp, &o.Object)
	if err != nil {
		return nil, err
	}
	if err = s.dress(d, w, tmp, e.Below, o); err == nil {
		err = s.whiteouts.Place(tmp, objectOf(o.Mode), e)
	}
	if err != nil {
		if file != nil {
			file.Close()
		}
		_ = s.work.Remove(tmp) // the error to tell is the first one; what is left is swept at the next mount
		return nil, err
	}
	return file, nil
}

// dress gives a staged object owner, mode, ACLs and, where a directory replaces a lower one, the opaque mark.
func (s *Stack) dress(d *Dir, w *sys.Dir, tmp string, below bool, o *inheriting) error {
	if err := s.describe(s.Shown(Upper, w.At(tmp)), d, o); err != nil {
		return err
	}
	if o.Mode&unix.S_IFMT != unix.S_IFDIR || !below {
		return nil
	}
	h, err := w.OpenDir(tmp)
	if err != nil {
		return err
	}
	defer h.Close()
	return s.whiteouts.MakeOpaque(h)
}

// describe sets owner, mode and ACLs of an object that no process can reach yet.
func (s *Stack) describe(r owner.Ref, d *Dir, o *inheriting) error {
	recorded, err := r.Record(&sys.Stat{Uid: o.UID, Gid: o.GID, Mode: o.Mode, Rdev: o.Rdev})
	if recorded || err != nil {
		return err
	}
	return s.own(r, d, o)
}

// own gives a staged object owner, mode and ACLs.
func (s *Stack) own(r owner.Ref, d *Dir, o *inheriting) error {
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

// Link gives the upper's object at src the further name, which is [Absent] or a [Whiteout].
func (s *Stack) Link(d *Dir, up *sys.Dir, name string, f *Found, src sys.Ref, mode uint32) error {
	if err := s.whiteouts.Link(src, f.entry(up, name)); err != nil {
		return err
	}
	if f.Marker {
		whiteout.RemoveMarker(up, name)
	}
	d.note(name, mode)
	return nil
}
