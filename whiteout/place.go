package whiteout

import (
	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// Place moves an object of the work directory to a name that is free or a whiteout. what is the
// type of the object; a directory must be opaque. An object in the work directory stays there after
// an error.
func (m *Maker) Place(staged string, what Object, e Entry) error {
	work := m.work.Dir()
	switch {
	case e.Has != InPlace:
		return work.RenameNew(staged, e.Dir, e.Name)
	case what != Directory:
		return work.Rename(staged, e.Dir, e.Name, 0)
	}
	err := work.Rename(staged, e.Dir, e.Name, unix.RENAME_EXCHANGE)
	if sys.NoRenameFlags(err) {
		return moveBeside(work, staged, e)
	}
	if err != nil {
		return err
	}
	_ = work.Unlink(staged) // the whiteout; the next mount sweeps it if it stays
	return nil
}

// Link gives the object at src a further name, which is free or a whiteout.
func (m *Maker) Link(src sys.Ref, e Entry) error {
	if e.Has != InPlace {
		return e.Dir.Link(src, e.Name)
	}
	work, tmp := m.work.Dir(), m.work.Name()
	if err := work.Link(src, tmp); err != nil {
		return err
	}
	err := work.Rename(tmp, e.Dir, e.Name, 0)
	if err != nil {
		_ = work.Unlink(tmp) // the first error is returned
	}
	return err
}

// moveBeside moves an opaque directory to the name of a whiteout where names cannot be exchanged.
// The marker hides what is below while the name is free.
func moveBeside(from *sys.Dir, name string, to Entry) error {
	if err := addMarker(to.Dir, to.Name); err != nil {
		return err
	}
	if err := to.Dir.Unlink(to.Name); err != nil {
		return err
	}
	if err := from.RenameNew(name, to.Dir, to.Name); err != nil {
		return err
	}
	RemoveMarker(to.Dir, to.Name)
	return nil
}
