package stack

import (
	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// End is one end of a rename. Up is the upper's directory of Dir.
type End struct {
	Dir   *Dir
	Up    *sys.Dir
	Name  string
	Found Found
	// Merged: it is a directory with a part in a lower.
	Merged bool
	// Redirect is the redirect that Merged needs for its new name; empty: the one that it has, if any.
	Redirect string
	// HasOrigin: it is no directory, and has the inode number of a lower's object by its origin.
	HasOrigin bool
}

// Rename moves the upper's object at from to to, and replaces the object there. Precondition: a
// directory that is replaced shows no entry.
func (s *Stack) Rename(from, to *End) error {
	if err := s.prepareMove(from, to); err != nil {
		return err
	}
	if err := s.markTarget(from, to); err != nil {
		return err
	}
	src, dst := from.Found.entry(from.Up, from.Name), to.Found.entry(to.Up, to.Name)
	moved, err := s.whiteouts.Move(src, dst, s.copyAttributes)
	if moved.Covered {
		to.Dir.nowWhiteout(to.Name, merge{below: to.Found.Below})
	}
	if err != nil {
		return err
	}
	if moved.InPlace {
		from.Dir.nowWhiteout(from.Name, merge{below: from.Found.Below})
	} else {
		s.nowAbsent(from.Dir, from.Name, &from.Found)
	}
	to.Dir.nowObject(to.Name, from.Found.Stat.Mode)
	return nil
}

// prepareMove prepares a directory for another name. A directory with a part in a lower gets the
// redirect to that part. Any other directory is made opaque if a lower has the new name: it must
// not merge with that. Neither changes what shows under the present name.
func (s *Stack) prepareMove(from, to *End) error {
	if from.Redirect != "" {
		err := s.xattrs.SetRedirect(from.Up.At(from.Name), from.Redirect)
		if err == unix.EOPNOTSUPP {
			err = unix.EXDEV // as without redirects
		}
		return err
	}
	if !from.Found.IsDir() || from.Merged || !to.Found.Below {
		return nil
	}
	h, err := from.Up.OpenDir(from.Name)
	if err != nil {
		return err
	}
	defer h.Close()
	return s.whiteouts.MakeOpaque(h)
}

// markTarget makes the directory that an object is moved to impure, if the object is a copy.
func (s *Stack) markTarget(from, to *End) error {
	switch {
	case from.Dir == to.Dir:
		return nil
	case from.HasOrigin, from.Merged:
		return s.MarkImpure(to.Dir, to.Up)
	case from.Found.IsDir(), !from.Dir.Impure():
		return nil
	}
	return s.MarkImpureFor(to.Dir, to.Up, from.Up.At(from.Name))
}

// copyAttributes copies owner, mode and xattrs of a directory of the upper to a new one, as the
// layer has them on disk. It omits overlay xattrs.
func (s *Stack) copyAttributes(to, from *sys.Dir) error {
	onDisk := s.layers[Upper].onDisk
	model, r := onDisk.On(from.Ref()), onDisk.On(to.Ref())
	var st sys.Stat
	if err := model.Stat(&st); err != nil {
		return err
	}
	recorded, err := r.Record(&st)
	if err != nil {
		return err
	}
	if !recorded {
		if err := r.Chown(st.Uid, st.Gid); err != nil {
			return err
		}
		if err := r.Chmod(st.Mode & 0o7777); err != nil {
			return err
		}
	}
	names, err := model.ListXattr()
	if err != nil {
		return err
	}
	for _, name := range names {
		if s.names.Private(name) {
			continue
		}
		value, err := model.GetXattr(name)
		if err == nil {
			err = r.SetXattr(name, value, 0)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Exchange swaps the upper's objects at both ends.
func (s *Stack) Exchange(a, b *End) error {
	if err := s.prepareMove(a, b); err != nil {
		return err
	}
	if err := s.prepareMove(b, a); err != nil {
		return err
	}
	if err := s.markTarget(a, b); err != nil {
		return err
	}
	if err := s.markTarget(b, a); err != nil {
		return err
	}
	if err := a.Up.Rename(a.Name, b.Up, b.Name, unix.RENAME_EXCHANGE); err != nil {
		return err
	}
	a.Dir.nowObject(a.Name, b.Found.Stat.Mode)
	b.Dir.nowObject(b.Name, a.Found.Stat.Mode)
	return nil
}
