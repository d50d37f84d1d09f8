package stack

import (
	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/sys"
	"github.com/fuse-overlay/fuse-overlay/whiteout"
)

// entry is the name f of up, the directory of the upper, as package whiteout sees it.
func (f *Found) entry(up *sys.Dir, name string) whiteout.Entry {
	e := whiteout.Entry{Dir: up, Name: name, Below: f.Below, Marker: f.Marker}
	switch {
	case f.State == InUpper:
		e.Has = objectOf(f.Stat.Mode)
	case f.State == InLower:
		e.Has = whiteout.Lower
	case f.State == Whiteout && !f.Marker:
		e.Has = whiteout.InPlace
	}
	return e
}

func objectOf(mode uint32) whiteout.Object {
	if mode&unix.S_IFMT == unix.S_IFDIR {
		return whiteout.Directory
	}
	return whiteout.File
}

// Remove takes a name that is not a directory away: it is unlinked where nothing lies below it, else covered by a
// whiteout in one step. Precondition: up is d's directory of the upper and f exists.
func (s *Stack) Remove(d *Dir, up *sys.Dir, name string, f *Found) error {
	var err error
	if f.Below {
		err = s.whiteouts.Cover(f.entry(up, name))
	} else {
		err = up.Unlink(name)
	}
	if err == nil {
		s.noteAbsent(d, name, f.Below)
	}
	return err
}

// RemoveDir takes a directory away whose merged listing is empty. Its upper part may hold whiteouts: it is moved to the
// work directory whole and emptied there.
func (s *Stack) RemoveDir(d *Dir, up *sys.Dir, name string, f *Found) error {
	var err error
	if f.Below {
		err = s.whiteouts.Cover(f.entry(up, name))
	} else {
		err = s.whiteouts.RemoveDir(f.entry(up, name))
	}
	if err == nil {
		s.noteAbsent(d, name, f.Below)
	}
	return err
}
