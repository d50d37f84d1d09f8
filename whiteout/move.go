package whiteout

import (
	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// Moved is what [Maker.Move] has left behind.
type Moved struct {
	// InPlace: the whiteout under the old name stands under the name itself, whatever the form is.
	InPlace bool
	// Covered: the new name was free and has an in-place whiteout now, or had until the object
	// came; set after an error too.
	Covered bool
}

// Move renames the object at from to to, and leaves a whiteout at from if a lower shows there. At
// no moment does a lower's object show. A directory at to must show nothing; dress is for the empty
// one that replaces it. A directory at from must be opaque if a lower has something at to, unless
// the two are to merge.
//
// EXDEV: the upper's file system does not do that in one step, so that the caller's program copies
// instead.
func (m *Maker) Move(from, to Entry, dress Dress) (moved Moved, err error) {
	old := ""
	if to.Has == Directory {
		if old, err = m.clear(&to, dress); err != nil {
			return moved, err
		}
	}
	moved, err = m.move(from, to)
	if old != "" {
		if err != nil { // processes may have the old directory open
			_ = m.work.Dir().Rename(old, to.Dir, to.Name, unix.RENAME_EXCHANGE)
		}
		_ = m.work.Remove(old) // the next mount sweeps what stays
	}
	if err == nil && to.Marker {
		RemoveMarker(to.Dir, to.Name)
	}
	return moved, err
}

// move is Move over nothing, a whiteout, a file or an empty directory.
func (m *Maker) move(from, to Entry) (moved Moved, err error) {
	isDir := from.Has == Directory
	form := m.Forms.of(from.Name)
	switch {
	case to.Has == InPlace && (isDir || from.Below && form.InPlace()):
		moved.InPlace, err = m.moveByExchange(form, from, to)
	case !from.Below:
		err = from.Dir.Rename(from.Name, to.Dir, to.Name, 0)
	case !form.InPlace():
		if err = addMarker(from.Dir, from.Name); err == nil { // it hides the lower's object, not the upper's beside it
			err = from.Dir.Rename(from.Name, to.Dir, to.Name, 0)
		}
	case form.RenameWhiteout:
		moved.InPlace, err = true, from.Dir.Rename(from.Name, to.Dir, to.Name, unix.RENAME_WHITEOUT)
	case to.Has == Nothing:
		if err = m.coverNothing(form, to); err != nil { // a whiteout of nothing, or of what is hidden already
			return moved, err
		}
		moved.Covered = true
		moved.InPlace, err = m.moveByExchange(form, from, to)
	case isDir:
		err = unix.EXDEV // the old name would show its lower's object for a moment
	default:
		moved.InPlace, err = true, m.moveByLink(form, from, to)
	}
	return moved, err
}

// moveByExchange exchanges the object and the whiteout at to: a directory cannot be renamed over a
// whiteout, and the old name may need one.
func (m *Maker) moveByExchange(form Format, from, to Entry) (inPlace bool, err error) {
	if err := m.fitWhiteout(form, from, to); err != nil {
		return false, err
	}
	err = from.Dir.Rename(from.Name, to.Dir, to.Name, unix.RENAME_EXCHANGE)
	if sys.NoRenameFlags(err) {
		if from.Below && form.InPlace() && from.Has != Directory {
			return true, m.moveByLink(form, from, to)
		}
		if from.Below {
			if err := addMarker(from.Dir, from.Name); err != nil {
				return false, err
			}
		}
		return false, moveBeside(from.Dir, from.Name, to)
	}
	if err != nil {
		return false, err
	}
	if from.Below {
		return true, nil
	}
	return from.Dir.Unlink(from.Name) != nil, nil // a whiteout of nothing hides nothing
}

// fitWhiteout makes the whiteout at to one that is a whiteout in the directory of from as well: the
// xattr form is an empty file in a directory that does not allow it. EXDEV if there is no such
// form.
func (m *Maker) fitWhiteout(form Format, from, to Entry) error {
	if !form.InPlace() {
		form = m.Forms.Long
	}
	if form.WhiteoutXattrs {
		return form.allowXattrWhiteouts(from.Dir)
	}
	var st sys.Stat
	switch err := to.Dir.At(to.Name).Stat(&st); {
	case err != nil || IsDevice(&st):
		return err
	case form.Devices:
		return m.coverFile(form, to)
	}
	return unix.EXDEV
}

// moveByLink replaces a file in two steps: both names show the object for a moment, so it is not
// lost and hides its lower's; then the old name is covered.
func (m *Maker) moveByLink(form Format, from, to Entry) error {
	cover, err := m.stage(form, from.Dir)
	if err != nil {
		return err
	}
	work, tmp := m.work.Dir(), m.work.Name()
	if err = work.Link(from.Dir.At(from.Name), tmp); err == nil {
		if err = work.Rename(tmp, to.Dir, to.Name, 0); err == nil {
			err = work.Rename(cover, from.Dir, from.Name, 0)
		}
	}
	if err != nil {
		_ = m.work.Remove(tmp) // the first error is returned
		_ = m.work.Remove(cover)
	}
	return err
}
