package stack

import (
	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/sys"
	"github.com/fuse-overlay/fuse-overlay/whiteout"
)

// Remove takes a name that is not a directory away: it is unlinked where nothing lies below it, else covered by a
// whiteout in one step. Precondition: up is d's directory of the upper and f exists.
func (s *Stack) Remove(d *Dir, up *sys.Dir, name string, f *Found) error {
	var err error
	form := s.formatOf(name)
	switch {
	case !f.Below:
		err = up.Unlink(name)
	case f.State == InLower:
		err = s.coverNothing(form, up, name)
	case form.InPlace():
		err = s.coverFile(form, up, name)
	default:
		if err = mark(up, name); err == nil {
			err = up.Unlink(name)
		}
	}
	if err == nil {
		s.noteAbsent(d, name, f.Below)
	}
	return err
}

// coverNothing puts a whiteout where the upper has nothing.
func (s *Stack) coverNothing(form whiteout.Format, up *sys.Dir, name string) error {
	switch {
	case form.Devices:
		return s.makeDevice(up, name)
	case !form.InPlace():
		return mark(up, name)
	}
	tmp, err := s.makeWhiteout(form, up)
	if err != nil {
		return err
	}
	if err := s.work.Dir().RenameNew(tmp, up, name); err != nil {
		_ = s.work.Dir().Unlink(tmp) // the error to tell is the first
		return err
	}
	return nil
}

// coverFile puts a whiteout in the place of a file: renamed over it, so there is no moment without either.
func (s *Stack) coverFile(form whiteout.Format, up *sys.Dir, name string) error {
	tmp, err := s.makeWhiteout(form, up)
	if err != nil {
		return err
	}
	if err := s.work.Dir().Rename(tmp, up, name, 0); err != nil {
		_ = s.work.Dir().Unlink(tmp) // the error to tell is the first
		return err
	}
	return nil
}

// RemoveDir takes a directory away whose merged listing is empty. Its upper part may hold whiteouts: it is moved to the
// work directory whole and emptied there.
func (s *Stack) RemoveDir(d *Dir, up *sys.Dir, name string, f *Found) error {
	var err error
	form := s.formatOf(name)
	switch {
	case f.State == InLower:
		err = s.coverNothing(form, up, name)
	case f.Below && form.InPlace():
		err = s.coverDir(form, up, name)
	case f.Below:
		if err = mark(up, name); err == nil {
			err = s.removeUpperDir(up, name)
		}
	default:
		err = s.removeUpperDir(up, name)
	}
	if err == nil {
		s.noteAbsent(d, name, f.Below)
	}
	return err
}

// coverDir exchanges a directory for a whiteout. It returns ENAMETOOLONG if names cannot be
// exchanged: a marker is needed then, and its name is too long. Otherwise form would be the marker.
func (s *Stack) coverDir(form whiteout.Format, up *sys.Dir, name string) error {
	tmp, err := s.makeWhiteout(form, up)
	if err != nil {
		return err
	}
	if err := s.work.Dir().Rename(tmp, up, name, unix.RENAME_EXCHANGE); err != nil {
		_ = s.work.Dir().Unlink(tmp) // the error to tell is the first
		if sys.NoRenameFlags(err) {
			err = unix.ENAMETOOLONG
		}
		return err
	}
	_ = s.work.Remove(tmp) // published; what cannot be removed now is swept at the next mount
	return nil
}

// removeUpperDir removes a directory that shows nothing: at once when it holds nothing, else by way of the work directory.
func (s *Stack) removeUpperDir(up *sys.Dir, name string) error {
	err := up.Rmdir(name)
	if err != unix.ENOTEMPTY && err != unix.EEXIST {
		return err
	}
	tmp := s.work.Name()
	if err := up.RenameNew(name, s.work.Dir(), tmp); err != nil {
		return err
	}
	_ = s.work.Remove(tmp) // as in coverDir
	return nil
}
