package whiteout

import (
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// WorkDir is the work directory of an upper: an object is made there before it is renamed to its
// place.
type WorkDir interface {
	Dir() *sys.Dir
	// Name returns a name that is free in Dir.
	Name() string
	// Remove removes an object of Dir with all that is in it.
	Remove(name string) error
}

// Object is what is under a name. A marker is beside the name, not under it.
type Object uint8

const (
	// Nothing: the upper has no object under the name, and no lower's shows.
	Nothing Object = iota
	// InPlace is a whiteout in the upper that stands under the name itself.
	InPlace
	// Lower: the upper has no object under the name, and a lower's shows.
	Lower
	// File is an object of the upper of any other type but a directory.
	File
	// Directory is a directory of the upper.
	Directory
)

// Entry is a name in a directory of the upper.
type Entry struct {
	Dir  *sys.Dir
	Name string
	Has  Object
	// Below: a lower shows under this name where the upper has nothing.
	Below bool
	// Marker: the directory holds the marker of the name.
	Marker bool
}

// Forms are the ways in which whiteouts are written in one upper.
type Forms struct {
	Default Format
	// Long is the format for names whose markers would be longer than NameMax.
	Long Format
	// NameMax is the longest name of the upper, in bytes.
	NameMax int
}

// of is the format for a whiteout of name.
func (f *Forms) of(name string) Format {
	if len(Marker(name)) > f.NameMax {
		return f.Long
	}
	return f.Default
}

// Maker makes whiteouts and opaque directories in one upper. Its methods may be called by many
// goroutines; callers lock the names that they pass.
type Maker struct {
	// Forms is immutable while the Maker is in use.
	Forms Forms

	work   WorkDir  // immutable
	shares *sys.Dir // immutable; where the shared device lies

	shared   atomic.Pointer[string] // the name in shares of the device that whiteouts are links of; nil: none yet
	unshared atomic.Bool            // whiteouts cannot be links
}

// NewMaker finds out by trying in the work directory how whiteouts can be written. nameMax is the
// longest name of the upper, in bytes. An error of the disk is returned: the forms of an upper must
// not depend on it.
func NewMaker(work WorkDir, nameMax int, wanted Wanted) (*Maker, error) {
	m := &Maker{Forms: Forms{NameMax: nameMax}, work: work, shares: work.Dir()}
	var err error
	if m.Forms.Default, err = probe(work.Dir(), wanted); err != nil {
		return nil, err
	}
	if m.Forms.Long, err = probeLong(work.Dir(), m.Forms.Default); err != nil {
		return nil, err
	}
	return m, nil
}

// InPlace reports whether a whiteout of name stands under the name itself; otherwise it is a
// marker.
func (m *Maker) InPlace(name string) bool {
	form := m.Forms.of(name)
	return form.InPlace()
}

// MakeOpaque makes d opaque. Precondition: no process can reach d, or nothing lies below it.
func (m *Maker) MakeOpaque(d *sys.Dir) error { return m.Forms.Default.MakeOpaque(d) }

// stage makes a whiteout of an in-place form that is to stand in dir, and returns its name in the
// work directory.
func (m *Maker) stage(form Format, dir *sys.Dir) (string, error) {
	if err := form.allowXattrWhiteouts(dir); err != nil {
		return "", err
	}
	tmp := m.work.Name()
	var err error
	if form.Devices {
		err = m.makeDevice(m.work.Dir(), tmp)
	} else {
		err = form.stage(m.work.Dir(), tmp)
	}
	if err != nil {
		_ = m.work.Remove(tmp) // the first error is returned
		return "", err
	}
	return tmp, nil
}

// nameMax is NAME_MAX, the longest name of any file system.
const nameMax = 255

// addMarker makes the marker of a name, if there is none.
func addMarker(dir *sys.Dir, name string) error {
	marker := Marker(name)
	if len(marker) > nameMax {
		return unix.ENAMETOOLONG
	}
	return touch(dir, marker, 0)
}

// RemoveMarker removes the marker of a name under which the upper has an object now. If that fails,
// the marker that stays hides only what the object hides as well.
func RemoveMarker(dir *sys.Dir, name string) { _ = dir.Unlink(Marker(name)) }
