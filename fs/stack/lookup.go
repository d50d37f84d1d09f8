package stack

import (
	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// State is what a name is, told by what a writer must do next.
type State uint8

const (
	// Absent: nothing there; an object can simply be made.
	Absent State = iota
	// Whiteout: the upper holds a whiteout; an object must take its place in one step.
	Whiteout
	// InLower: the object lies in a lower only; it must be copied up before it is changed.
	InLower
	// InUpper: the object lies in the upper, a directory perhaps in lowers besides; it can be changed.
	InUpper
)

// Found is what a name means. It is a value: no handle, no path.
type Found struct {
	State State
	// Layer has the attributes and the data, when the object exists.
	Layer int
	// Dirs are the layers that a directory may lie in, topmost first.
	Dirs []uint16
	// Parts are those directories, where layers change.
	Parts []Part
	// Below: a lower shows under this name where the upper has nothing, so removing it takes a whiteout.
	Below bool
	// Marker: the upper holds a .wh. file for the name.
	Marker bool
	// Data is where the data of a regular file is, if not in it.
	Data *Data
	// Shared: a lower's object with several links, which stay one object. Where it has a copy, Layer and Stat are that's,
	// with the link count of the object; the name may still be a lower's alone.
	Shared *Shared
	// Stat are the attributes, when the object exists.
	Stat sys.Stat
}

// Exists reports whether the name shows an object.
func (f *Found) Exists() bool { return f.State >= InLower }

// IsDir reports whether the name shows a directory.
func (f *Found) IsDir() bool { return f.Exists() && f.Stat.Mode&unix.S_IFMT == unix.S_IFDIR }

// NameMax is the longest name, as on every file system that can be an upper.
const NameMax = 255

// lookupEntry looks at the object of an index entry; nil is a name that is not there.
func (s *Stack) lookupEntry(parts []part, e *entry, o Opened, f *Found) error {
	if e == nil {
		return nil
	}
	if e.found(f); e.absent() {
		return nil
	}
	return s.look(parts, o, e.name, int(e.layer), false, f)
}

// found fills f with what the index knows.
func (e *entry) found(f *Found) {
	f.Below, f.Marker = e.belowUpper(), e.marker
	switch {
	case !e.absent():
		if e.typ == unix.DT_DIR {
			f.Dirs = append(append(make([]uint16, 0, 1+len(e.lowers())), e.layer), e.lowers()...)
		}
	case e.layer == Upper:
		f.State = Whiteout
	}
}

// look fills f with what a layer has under a name, and with where the data of a file is.
func (s *Stack) look(parts []part, o Opened, name string, layer int, xattrWhiteouts bool, f *Found) error {
	if err := s.stat(o, name, layer, xattrWhiteouts, f); err != nil || !f.Exists() {
		return err
	}
	if layer != Upper && s.index != nil && manyLinks(&f.Stat) {
		if err := s.lookForCopy(parts, o, name, layer, f); err != nil || f.Layer == Upper {
			return err
		}
	}
	return s.lookForData(parts, o, name, layer, f)
}

// stat fills f with what a layer has under a name. It makes calls on that layer alone.
func (s *Stack) stat(o Opened, name string, layer int, xattrWhiteouts bool, f *Found) error {
	h, err := o.Layer(layer)
	if err != nil {
		return err
	}
	if err := s.Shown(layer, h.At(name)).Stat(&f.Stat); err != nil {
		if err == unix.ENOENT {
			return nil
		}
		return err
	}
	absent, err := s.isWhiteout(h.At(name), &f.Stat, xattrWhiteouts)
	if err != nil {
		return err
	}
	switch {
	case absent && layer == Upper:
		f.State = Whiteout
	case absent:
		f.State = Absent
	case layer == Upper:
		f.State, f.Layer = InUpper, layer
	default:
		f.State, f.Layer, f.Below = InLower, layer, true
	}
	if f.IsDir() && f.Dirs == nil {
		f.Dirs = []uint16{uint16(layer)}
	}
	return nil
}
