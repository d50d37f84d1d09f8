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
	// Merged: it is a directory with a lower part, to which Redirect leads after the rename; empty: the redirect that it has.
	Merged   bool
	Redirect string
	// HasOrigin: it is no directory, and has the inode number of a lower's object.
	HasOrigin bool
}

// Rename moves the upper's object at from to to, replacing what is there. A directory that is replaced shows no entry: the
// caller has checked.
func (s *Stack) Rename(from, to *End) error {
	if err := s.leave(from, to); err != nil {
		return err
	}
	if err := s.admitOrigin(from, to); err != nil {
		return err
	}
	src, dst := from.Found.entry(from.Up, from.Name), to.Found.entry(to.Up, to.Name)
	moved, err := s.whiteouts.Move(src, dst, s.copyAttributes)
	if moved.Covered {
		to.Dir.noteWhiteout(to.Name, false, to.Found.Below)
	}
	if err != nil {
		return err
	}
	if moved.InPlace {
		from.Dir.noteWhiteout(from.Name, false, from.Found.Below)
	} else {
		s.noteAbsent(from.Dir, from.Name, from.Found.Below)
	}
	to.Dir.note(to.Name, from.Found.Stat.Mode)
	return nil
}

// leave prepares a directory for another name. One with a lower part gets the redirect to it: where it still lies that leads to
// what is there anyway. Any other is made opaque before it comes to a name with something below, which it must not merge
// with; where it still lies nothing is below it that shows, so the mark changes nothing there.
func (s *Stack) leave(from, to *End) error {
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

// admitOrigin prepares the directory that an object is moved to, if it is another: where it is looked at, its origin has to be
// looked for.
func (s *Stack) admitOrigin(from, to *End) error {
	if !from.HasOrigin && !from.Merged || from.Dir == to.Dir {
		return nil
	}
	return s.MarkImpure(to.Dir, to.Up)
}

// copyAttributes gives the new directory of the upper what the layer itself keeps of the old one's owner, mode and
// extended attributes, but for the overlay's own.
func (s *Stack) copyAttributes(to, from *sys.Dir) error {
	kept := s.layers[Upper].onDisk
	model, r := kept.On(from.Ref()), kept.On(to.Ref())
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
	if err := s.leave(a, b); err != nil {
		return err
	}
	if err := s.leave(b, a); err != nil {
		return err
	}
	if err := s.admitOrigin(a, b); err != nil {
		return err
	}
	if err := s.admitOrigin(b, a); err != nil {
		return err
	}
	if err := a.Up.Rename(a.Name, b.Up, b.Name, unix.RENAME_EXCHANGE); err != nil {
		return err
	}
	a.Dir.note(a.Name, b.Found.Stat.Mode)
	b.Dir.note(b.Name, a.Found.Stat.Mode)
	return nil
}
