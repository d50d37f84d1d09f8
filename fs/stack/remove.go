package stack

import (
	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/sys"
	"github.com/fuse-overlay/fuse-overlay/whiteout"
)

// entry returns a name, found as f, for package whiteout. up is the directory of the upper.
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

// Remove removes a name that is no directory. If a lower would show then, a whiteout replaces it in
// one step. Preconditions: up is d's directory of the upper, and f exists.
func (s *Stack) Remove(d *Dir, up *sys.Dir, name string, f *Found) error {
	var err error
	if f.Below {
		err = s.whiteouts.Cover(f.entry(up, name))
	} else {
		err = up.Unlink(name)
	}
	if err == nil {
		s.nowAbsent(d, name, f)
	}
	return err
}

// RemoveDir removes a directory that shows no entry. Its part in the upper may have whiteouts: the
// whole part is moved to the work directory, and removed there. Preconditions: those of Remove.
func (s *Stack) RemoveDir(d *Dir, up *sys.Dir, name string, f *Found) error {
	var err error
	if f.Below {
		err = s.whiteouts.Cover(f.entry(up, name))
	} else {
		err = s.whiteouts.RemoveDir(f.entry(up, name))
	}
	if err == nil {
		s.nowAbsent(d, name, f)
	}
	return err
}
