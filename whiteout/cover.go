package whiteout

import (
	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// Cover puts a whiteout in the place of what the upper has under a name. At no moment does a
// lower's object show there. A directory may hold whiteouts, but must show nothing.
//
// ENAMETOOLONG: no form of whiteout takes the name.
func (m *Maker) Cover(e Entry) error {
	form := m.Forms.of(e.Name)
	switch {
	case e.Has == Nothing || e.Has == Lower:
		return m.coverNothing(form, e)
	case form.InPlace() && e.Has == Directory:
		return m.coverDir(form, e)
	case form.InPlace():
		return m.coverFile(form, e)
	}
	if err := addMarker(e.Dir, e.Name); err != nil {
		return err
	}
	if e.Has == Directory {
		return m.RemoveDir(e)
	}
	return e.Dir.Unlink(e.Name)
}

// coverNothing puts a whiteout under a name that is free.
func (m *Maker) coverNothing(form Format, e Entry) error {
	switch {
	case form.Devices:
		return m.makeDevice(e.Dir, e.Name)
	case !form.InPlace():
		return addMarker(e.Dir, e.Name)
	}
	tmp, err := m.stage(form, e.Dir)
	if err != nil {
		return err
	}
	if err := m.work.Dir().RenameNew(tmp, e.Dir, e.Name); err != nil {
		_ = m.work.Dir().Unlink(tmp) // the first error is returned
		return err
	}
	return nil
}

// coverFile renames a whiteout over a file.
func (m *Maker) coverFile(form Format, e Entry) error {
	tmp, err := m.stage(form, e.Dir)
	if err != nil {
		return err
	}
	if err := m.work.Dir().Rename(tmp, e.Dir, e.Name, 0); err != nil {
		_ = m.work.Dir().Unlink(tmp) // the first error is returned
		return err
	}
	return nil
}

// coverDir exchanges a directory for a whiteout. It returns ENAMETOOLONG if names cannot be
// exchanged: then a marker is needed, and its name is too long, since form would be the marker
// otherwise.
func (m *Maker) coverDir(form Format, e Entry) error {
	tmp, err := m.stage(form, e.Dir)
	if err != nil {
		return err
	}
	if err := m.work.Dir().Rename(tmp, e.Dir, e.Name, unix.RENAME_EXCHANGE); err != nil {
		_ = m.work.Dir().Unlink(tmp) // the first error is returned
		if sys.NoRenameFlags(err) {
			err = unix.ENAMETOOLONG
		}
		return err
	}
	_ = m.work.Remove(tmp) // the next mount sweeps what stays
	return nil
}

// RemoveDir removes a directory that shows nothing: in place if it is empty, else by way of the
// work directory, with the whiteouts in it.
func (m *Maker) RemoveDir(e Entry) error {
	err := e.Dir.Rmdir(e.Name)
	if err != unix.ENOTEMPTY && err != unix.EEXIST {
		return err
	}
	tmp := m.work.Name()
	if err := e.Dir.RenameNew(e.Name, m.work.Dir(), tmp); err != nil {
		return err
	}
	_ = m.work.Remove(tmp) // the next mount sweeps what stays
	return nil
}
