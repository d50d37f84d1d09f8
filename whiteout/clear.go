package whiteout

import (
	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/ondisk"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// Dress gives the directory empty the attributes of the directory old.
type Dress func(empty, old *sys.Dir) error

// clear replaces a directory of the upper that shows nothing, but may hold whiteouts, by an empty
// opaque one, over which a directory can be renamed (ovl_clear_empty).
//
// It returns the name of the old directory in the work directory. The name is empty if the
// directory was empty, or if its file system exchanges no names, so that it was emptied in place.
// clear sets e.Marker if it has made the marker.
func (m *Maker) clear(e *Entry, dress Dress) (moved string, err error) {
	old, err := e.Dir.OpenDir(e.Name)
	if err != nil {
		return "", err
	}
	defer old.Close()
	isEmpty := true
	if err := old.List(func(sys.Dirent) error { isEmpty = false; return nil }); err != nil || isEmpty {
		return "", err
	}
	if m.Forms.Default.Xattrs == ondisk.NoXattrs { // a directory with a marker in it cannot be renamed over
		if err := hideBelow(e); err != nil {
			return "", err
		}
	}
	tmp := m.work.Name()
	err = m.stageEmpty(tmp, old, dress)
	if err == nil {
		err = m.work.Dir().Rename(tmp, e.Dir, e.Name, unix.RENAME_EXCHANGE)
	}
	if err == nil {
		return tmp, nil
	}
	_ = m.work.Remove(tmp) // the first error is returned
	if sys.NoRenameFlags(err) {
		err = emptyInPlace(e, old)
	}
	return "", err
}

// hideBelow makes the marker of a name with a lower object.
func hideBelow(e *Entry) error {
	if !e.Below {
		return nil
	}
	if err := addMarker(e.Dir, e.Name); err != nil {
		return err
	}
	e.Marker = true
	return nil
}

// stageEmpty makes the empty directory, opaque by its xattr, under a name of the work directory.
func (m *Maker) stageEmpty(tmp string, old *sys.Dir, dress Dress) error {
	work := m.work.Dir()
	if err := work.Mkdir(tmp, 0o700); err != nil {
		return err
	}
	empty, err := work.OpenDir(tmp)
	if err != nil {
		return err
	}
	defer empty.Close()
	if m.Forms.Default.Xattrs != ondisk.NoXattrs {
		if err := m.MakeOpaque(empty); err != nil {
			return err
		}
	}
	return dress(empty, old)
}

// emptyInPlace removes the whiteouts in a directory. The marker beside it is made first: so each
// state shows the same.
func emptyInPlace(e *Entry, d *sys.Dir) error {
	if err := hideBelow(e); err != nil {
		return err
	}
	var names []string
	err := d.List(func(entry sys.Dirent) error { names = append(names, entry.Name); return nil })
	for i := 0; err == nil && i < len(names); i++ {
		err = d.Unlink(names[i])
	}
	return err
}
