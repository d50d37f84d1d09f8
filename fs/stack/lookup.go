package stack

import (
	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/sys"
	"github.com/fuse-overlay/fuse-overlay/whiteout"
)

// State is what a name is, by what a writer must do next.
type State uint8

const (
	// Absent: no object. One can be made in place.
	Absent State = iota
	// Whiteout: the upper has a whiteout. An object must replace it in one step.
	Whiteout
	// InLower: the object lies in a lower only. It must be copied up before it is changed.
	InLower
	// InUpper: the object lies in the upper and can be changed. A directory may have parts in lowers.
	InUpper
)

// Found is what a name means. It is a value: no handle, no path.
type Found struct {
	State State
	// Layer has the attributes and the data, if the object exists.
	Layer int
	// Dirs are the layers that a directory may have parts in, topmost first.
	Dirs []uint16
	// Parts are the inodes of these directories. They are set only where layers change.
	Parts []Part
	// Below: a lower would show under this name if the upper had nothing. A removal needs a
	// whiteout.
	Below bool
	// Marker: the upper has a .wh. file for the name.
	Marker bool
	// Data is where the data of a metacopy is; nil: the file has its own data.
	Data *Data
	// Shared is a lower's object with several links, which stay one object (index=on). If it has a
	// copy, Layer and Stat are those of the copy, with the link count of the object. The name itself
	// may still lie in a lower only.
	Shared *Shared
	// Stat are the attributes, if the object exists.
	Stat sys.Stat
}

// Exists reports whether the name shows an object.
func (f *Found) Exists() bool { return f.State >= InLower }

// IsDir reports whether the name shows a directory.
func (f *Found) IsDir() bool { return f.Exists() && f.Stat.Mode&unix.S_IFMT == unix.S_IFDIR }

// NameMax is the longest name, as on every file system that can be an upper.
const NameMax = 255

// lookUpEntry fills f with the object of an entry of a name table; nil: the table lacks the name.
func (s *Stack) lookUpEntry(parts []part, e *entry, o LayerDirs, f *Found) error {
	if e == nil {
		return nil
	}
	if e.describe(f); e.absent() {
		return nil
	}
	p := part{layer: e.layer}
	if err := s.stat(o, &p, e.name, f); err != nil || !f.Exists() {
		return err
	}
	return s.lookForMore(parts, o, e.name, f)
}

// describe fills f with what the name table has.
func (e *entry) describe(f *Found) {
	e.merge.describe(f)
	switch {
	case e.absent():
		f.setObject(e.layer, e.typ)
	case e.typ == unix.DT_DIR:
		f.Dirs = append(append(make([]uint16, 0, 1+len(e.lowers())), e.layer), e.lowers()...)
	}
}

// lookUpInParts looks a name up in the parts of a directory, one after the other. Where layers
// change, f has all parts of a directory that is found.
func (s *Stack) lookUpInParts(parts []part, o LayerDirs, name string, f *Found) error {
	var m merge
	for i := range parts {
		if err := s.lookUpInPart(&m, o, &parts[i], name, f); err != nil {
			return err
		}
		if m.closed || i == len(parts)-1 {
			break
		}
		h, err := o.Layer(int(parts[i].layer))
		if err == nil {
			err = s.lookForMarker(&m, h, parts[i].layer, name)
		}
		if err != nil {
			return err
		}
	}
	m.describe(f)
	if f.setObject(m.layer, m.typ); !f.Exists() {
		return nil
	}
	return s.lookForMore(parts, o, name, f)
}

// lookUpInPart gives m what one part has under a name.
func (s *Stack) lookUpInPart(m *merge, o LayerDirs, p *part, name string, f *Found) error {
	var below sys.Stat
	st := &f.Stat
	if m.typ != noType {
		st = &below
	}
	typ, err := s.typeIn(o, p, name, st)
	if err != nil || typ == noType {
		return err
	}
	if m.next(p.layer, typ) == isHidden || typ != unix.DT_DIR {
		return nil
	}
	f.Dirs = append(f.Dirs, p.layer)
	if s.layersChange {
		f.Parts = append(f.Parts, Part{p.layer, st.Dev, st.Ino})
	}
	return nil
}

// lookForMarker gives m the marker that a layer's directory has for a name.
func (s *Stack) lookForMarker(m *merge, h *sys.Dir, layer uint16, name string) error {
	has, err := whiteout.HasMarker(h, name)
	if has {
		m.nextMarker(layer)
	}
	return err
}

// typeIn fills st with what a part has under a name, and returns its type; DT_WHT: a whiteout. It
// makes calls on that layer alone.
func (s *Stack) typeIn(o LayerDirs, p *part, name string, st *sys.Stat) (typ uint8, err error) {
	h, err := o.Layer(int(p.layer))
	if err != nil {
		return noType, err
	}
	r := h.At(name)
	if err := s.Shown(int(p.layer), r).Stat(st); err != nil {
		if err == unix.ENOENT {
			err = nil
		}
		return noType, err
	}
	absent, err := whiteout.Is(s.names, r, st, p.xattrWhiteouts)
	switch {
	case err != nil:
		return noType, err
	case absent:
		return unix.DT_WHT, nil
	}
	return direntType(st.Mode), nil
}

// stat fills f with what a part has under a name.
func (s *Stack) stat(o LayerDirs, p *part, name string, f *Found) error {
	typ, err := s.typeIn(o, p, name, &f.Stat)
	if err != nil {
		return err
	}
	if f.setObject(p.layer, typ); f.IsDir() && f.Dirs == nil {
		f.Dirs = []uint16{p.layer}
	}
	return nil
}

// setObject fills in what the topmost layer with the name has.
func (f *Found) setObject(layer uint16, typ uint8) {
	switch {
	case typ == noType:
	case typ == unix.DT_WHT && layer == Upper:
		f.State = Whiteout
	case typ == unix.DT_WHT:
	case layer == Upper:
		f.State, f.Layer = InUpper, Upper
	default:
		f.State, f.Layer, f.Below = InLower, int(layer), true
	}
}

// lookForMore fills in the parts of the object found that lie elsewhere: its copy in the index
// (index=on), and its data.
func (s *Stack) lookForMore(parts []part, o LayerDirs, name string, f *Found) error {
	layer := f.Layer
	if layer != Upper && s.index != nil && manyLinks(&f.Stat) {
		if err := s.lookForCopy(parts, o, name, layer, f); err != nil || f.Layer == Upper {
			return err
		}
	}
	return s.lookForData(parts, o, name, layer, f)
}
