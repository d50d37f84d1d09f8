package stack

import (
	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/whiteout"
)

// merge is the merge rule of overlay file systems for one name (ovl_lookup in
// fs/overlayfs/namei.c). It is given what each layer has under the name, the topmost layer first:
//
//	nothing             the layers below go on
//	a whiteout          stops
//	no directory        stops
//	a directory         goes on: the layers below may have further parts of it
//	an opaque one       stops
//	a marker (.wh. file)  stops below its layer, not beside it
//
// If the upper has the name, the walk goes on to the next lower that has it: a removal needs to
// know whether a lower would show then. The zero value has been given nothing.
type merge struct {
	layer  uint16 // the topmost layer that has the name
	typ    uint8  // DT_* of what that has; DT_WHT: a whiteout; noType: no layer has the name
	marker bool   // the upper has a .wh. file for the name
	closed bool   // the layers further down change nothing
	below  bool   // a lower would show if the upper had nothing
}

// noType is the type of nothing, which no object has (DT_UNKNOWN).
const noType = unix.DT_UNKNOWN

// verdict is what an entry of a layer is in the merged directory.
type verdict uint8

const (
	isHidden verdict = iota // by a layer above
	isTop                   // the object that shows, or a whiteout
	isPart                  // a directory that merges with those above
)

// next is given an object of the next layer down that has one, or a whiteout.
func (m *merge) next(layer uint16, typ uint8) verdict {
	switch {
	case m.closed:
		return isHidden
	case m.typ == noType:
		m.layer, m.typ = layer, typ
		m.closed = layer != Upper && typ != unix.DT_DIR
		return isTop
	}
	if typ != unix.DT_WHT && m.layer == Upper {
		m.below = true
	}
	if m.typ == unix.DT_DIR && typ == unix.DT_DIR && !m.marker {
		return isPart
	}
	m.closed = true
	return isHidden
}

// nextMarker is given a marker, after the object that the same layer has beside it.
func (m *merge) nextMarker(layer uint16) {
	switch {
	case layer != Upper && m.typ != noType:
		m.closed = true
	case layer != Upper:
		m.layer, m.typ, m.closed = layer, unix.DT_WHT, true
	case m.typ == noType:
		m.layer, m.typ, m.marker = layer, unix.DT_WHT, true
	default:
		// A whiteout in the place of the name counts first: a new object has to replace it.
		m.marker = m.typ != unix.DT_WHT
	}
}

// nextOpaque is called if the directory given last is opaque.
func (m *merge) nextOpaque() { m.closed = true }

// absent reports whether no object shows.
func (m *merge) absent() bool { return m.typ == noType || m.typ == unix.DT_WHT }

// belowUpper reports whether a lower shows where the upper has nothing.
func (m *merge) belowUpper() bool {
	if m.layer == Upper {
		return m.below
	}
	return !m.absent()
}

// describe fills f with all but the object.
func (m *merge) describe(f *Found) {
	f.Below, f.Marker = m.belowUpper(), m.marker
	if m.layer == Upper && m.typ == unix.DT_WHT {
		f.State = Whiteout
	}
}

// newPart is the part that a layer has by the marks of its directory.
func newPart(layer uint16, m *whiteout.DirXattrs) part {
	return part{layer, m.XattrWhiteouts, m.Impure}
}

// partWalk is the merge rule for the parts of one directory. It collects them.
type partWalk struct {
	merge
	parts []part
}

// skips reports whether the next layer is passed over because it has no directory any more: a lower
// was changed under the mount. The topmost cannot be passed over.
func (w *partWalk) skips(err error) bool { return len(w.parts) > 0 && isGone(err) }

// add is given the directory of the next layer down, and reports whether the layers below may have
// further parts.
func (w *partWalk) add(layer uint16, m *whiteout.DirXattrs) (more bool) {
	w.next(layer, unix.DT_DIR)
	w.parts = append(w.parts, newPart(layer, m))
	if m.Opaque {
		w.nextOpaque()
	}
	return !w.closed
}
