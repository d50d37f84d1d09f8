package stack

import (
	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/sys"
	"github.com/fuse-overlay/fuse-overlay/whiteout"
)

// Object says what to make.
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
	over := f.State == Whiteout && !f.Marker
	inPlace := !over && !(o.Mode&unix.S_IFMT == unix.S_IFDIR && f.Below)
	if err := s.inherit(d, up, &o, inPlace); err != nil {
		return nil, err
	}
	if inPlace && o.UID == s.uid && (o.GID == s.gid || o.inheritsGID) {
		if file, err = make1(up, name, &o.Object); err != nil {
			return nil, err
		}
	} else if file, err = s.createStaged(d, up, name, f, &o, over); err != nil {
		return nil, err
	}
	if f.Marker {
		s.unmark(up, name)
	}
	d.note(name, o.Mode)
	return file, nil
}

// unmark removes the .wh. file of a name that the upper now has. What is left of it after an error hides only what the
// new object hides as well.
func (s *Stack) unmark(up *sys.Dir, name string) { _ = up.Unlink(whiteout.Marker(name)) }

// make1 makes an object with one system call.
func make1(dir *sys.Dir, name string, o *Object) (*sys.File, error) {
	switch o.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		return dir.CreateFile(name, o.Mode&0o7777)
	case unix.S_IFDIR:
		return nil, dir.Mkdir(name, o.Mode&0o7777)
	case unix.S_IFLNK:
		return nil, dir.Symlink(o.Target, name)
	default:
		return nil, dir.Mknod(name, o.Mode, o.Rdev)
	}
}

// createStaged makes the object in the work directory, whole, and moves it to its place.
func (s *Stack) createStaged(d *Dir, up *sys.Dir, name string, f *Found, o *inheriting, over bool) (*sys.File, error) {
	w, tmp := s.work.Dir(), s.work.Name()
	file, err := make1(w, tmp, &o.Object)
	if err != nil {
		return nil, err
	}
	if err = s.dress(d, w, tmp, f, o); err == nil {
		err = s.place(w, tmp, up, name, o.Mode&unix.S_IFMT == unix.S_IFDIR, over)
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
func (s *Stack) dress(d *Dir, w *sys.Dir, tmp string, f *Found, o *inheriting) error {
	r := w.At(tmp)
	if o.UID != s.uid || o.GID != s.gid {
		if err := r.Chown(o.UID, o.GID); err != nil {
			return err
		}
	}
	kind := o.Mode & unix.S_IFMT
	if kind != unix.S_IFLNK {
		if err := r.Chmod(o.Mode & 0o7777); err != nil { // chown may have cleared suid and sgid
			return err
		}
		if err := applyDefaultACL(r, d.defaultACL, o.Mode); err != nil {
			return err
		}
	}
	if kind != unix.S_IFDIR || !f.Below {
		return nil
	}
	h, err := w.OpenDir(tmp)
	if err != nil {
		return err
	}
	defer h.Close()
	return s.format.MarkOpaque(h)
}

// place moves a staged object over nothing, or over the whiteout device of its name.
func (s *Stack) place(w *sys.Dir, tmp string, up *sys.Dir, name string, isDir, over bool) error {
	if !over {
		return w.Rename(tmp, up, name, unix.RENAME_NOREPLACE)
	}
	if !isDir {
		return w.Rename(tmp, up, name, 0)
	}
	if err := w.Rename(tmp, up, name, unix.RENAME_EXCHANGE); err != nil {
		return err
	}
	_ = w.Unlink(tmp) // the whiteout; published already, and swept at the next mount
	return nil
}

// Link gives the upper's object at src the further name, which is [Absent] or a [Whiteout].
func (s *Stack) Link(d *Dir, up *sys.Dir, name string, f *Found, src sys.Ref, mode uint32) error {
	if f.State == Whiteout && !f.Marker {
		w, tmp := s.work.Dir(), s.work.Name()
		if err := w.Link(src, tmp); err != nil {
			return err
		}
		if err := w.Rename(tmp, up, name, 0); err != nil {
			_ = w.Unlink(tmp)
			return err
		}
	} else if err := up.Link(src, name); err != nil {
		return err
	}
	if f.Marker {
		s.unmark(up, name)
	}
	d.note(name, mode)
	return nil
}
