package stack

import (
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
	"github.com/fuse-overlay/fuse-overlay/whiteout"
)

// Upper is the number of the writable layer. Lowers follow from 1, the topmost first; a read-only stack begins with 1.
const Upper = 0

// Opened gives the opened directories of one merged directory, layer by layer. They stay open while the call lasts.
type LayerDirs interface {
	Layer(layer int) (*sys.Dir, error)
	// Has reports whether Layer has opened the directory in a layer already.
	Has(layer int) bool
	// Path is where the directory lies below a layer's root.
	Path(layer int) string
}

// part is one layer's share of a merged directory.
type part struct {
	layer          uint16
	xattrWhiteouts bool
	impure         bool // entries may have attributes of the overlay's own
}

// Dir is a merged directory. The caller serializes all use of it; [Dir.Aside] and [Stack.Resolve] are for a caller that must not wait for a
// layer meanwhile.
type Dir struct {
	layers  []uint16   // where a directory of that place may take part, topmost first
	parts   []part     // those that do; nil until loaded
	table   *nameTable // nil until needed
	lookups int        // names looked for while it was left unlisted

	// redirect is that of the upper's part, under which the layers below have the directory; empty: its own name.
	redirect string
	// moved are the layers that have the directory elsewhere than under its name in theirs of its parent. Written before
	// anybody else knows the directory, and by renames.
	moved []moved
	above []part // of the parent, when this directory was met: a redirect may name a directory beside this one

	redirectRead bool   // the marks have been read once: a redirect is followed then or never, see [Stack.loadAnew]
	changes      uint64 // how often what is in the directory, or where it lies, has changed
	aside        *aside // nil: it is not being loaded aside

	defaultACL      []byte // of the upper's directory, for new entries
	defaultACLKnown bool
	impure          bool // marked so, since it was loaded
}

// NewEmptyDir returns a directory that was just made in the upper: nothing is in it, and nothing shows through.
func NewEmptyDir() Dir {
	return Dir{layers: []uint16{Upper}, parts: []part{{layer: Upper}}, table: newNameTable()}
}

// HasUpper reports whether the upper takes part: entries can be made in it.
func (d *Dir) HasUpper() bool { return d.layers[0] == Upper }

// Top is the layer that the directory's attributes come from.
func (d *Dir) Top() int { return int(d.layers[0]) }

// AddUpper makes the upper take part, as a copy-up of the directory does.
func (d *Dir) AddUpper() {
	d.changes++
	if d.aside != nil {
		d.aside.stale = true
	}
	d.layers = append([]uint16{Upper}, d.layers...)
	if d.table != nil {
		d.parts = append([]part{{layer: Upper}}, d.parts...)
	} else {
		d.parts = nil // of one part more from now on: to be loaded again
	}
	d.defaultACLKnown = false
}

// MayMerge reports whether several layers may take part; known for certain after [Stack.Load].
func (d *Dir) MayMerge() bool {
	if d.parts != nil {
		return len(d.parts) > 1
	}
	return len(d.layers) > 1
}

// HasLower reports whether a lower takes part. Precondition: loaded.
func (d *Dir) HasLower() bool { return d.parts[len(d.parts)-1].layer != Upper }

// TopLower is the topmost lower that takes part, Upper when none does. Precondition: loaded.
func (d *Dir) TopLower() int {
	for _, p := range d.parts {
		if p.layer != Upper {
			return int(p.layer)
		}
	}
	return Upper
}

// impureIn reports whether entries that a layer has of a directory may have attributes of the overlay's own.
func impureIn(parts []part, layer int) bool {
	for _, p := range parts {
		if int(p.layer) == layer {
			return p.impure
		}
	}
	return false
}

// ForgetDefaultACL makes the next creation read the default ACL anew.
func (d *Dir) ForgetDefaultACL() { d.defaultACLKnown = false }

// Use is what a directory is loaded for.
type Use uint8

const (
	// ToLookUp: names are looked up. A large merged directory may be left unlisted.
	ToLookUp Use = iota
	// ToChange: names are looked up and changed. The names of a merged directory are listed.
	ToChange
	// ToList: all names are listed.
	ToList
	// ToListAnew: all names are read once more. It is for what [Dir.Aside] has returned.
	ToListAnew
)

// Loaded reports whether [Stack.Load] has nothing left to do.
func (s *Stack) Loaded(d *Dir, use Use) bool {
	switch use {
	case ToLookUp:
		return d.parts != nil
	case ToChange:
		return d.parts != nil && (s.layersChange || !d.unlisted())
	case ToList:
		return d.table != nil
	}
	return false
}

// Load finds out which layers take part in d, and as much of the names as a use needs.
func (s *Stack) Load(d *Dir, o LayerDirs, use Use) error {
	switch use {
	case ToLookUp:
		if !s.layersChange && (d.parts != nil || s.LeaveUnlisted(d, o)) {
			return nil
		}
	case ToListAnew:
		d.table = nil
		return s.list(d, o)
	case ToList:
		return s.list(d, o)
	}
	return s.loadParts(d, o)
}

// loadParts finds out which layers take part. It lists a directory that may merge, since that shows
// the opaque marks and the number of subdirectories at once.
func (s *Stack) loadParts(d *Dir, o LayerDirs) error {
	switch {
	case s.layersChange:
		return s.loadAnew(d, o)
	case d.unlisted(), d.parts == nil && len(d.layers) > 1:
		return s.list(d, o)
	case d.parts != nil:
		return nil
	}
	h, err := o.Layer(int(d.layers[0]))
	if err != nil {
		return err
	}
	m, err := whiteout.ReadDirXattrs(s.names, h) // below the only part there is nothing to be hidden
	if err != nil {
		return err
	}
	if m.Redirect != "" { // but perhaps something to be found
		return s.list(d, o)
	}
	d.parts = []part{{d.layers[0], m.XattrWhiteouts, m.Impure}}
	return nil
}

// aside is what is to be known at the end of a load of a directory that others use meanwhile.
type aside struct {
	changes []func(*nameTable) // what has happened to its names
	stale   bool               // it lies in other layers
}

func (a *aside) add(change func(*nameTable)) { a.changes = append(a.changes, change) }

// Aside begins a load of d that does not keep others from using it: a copy, to be loaded in its place, and given to [Dir.Adopt].
// There is one at a time.
func (d *Dir) Aside() Dir {
	d.aside = &aside{}
	loaded := *d
	loaded.aside = nil
	return loaded
}

// Adopt ends what Aside began, and takes over what was found out; nil: nothing was. It reports false where d lies in other layers by
// now, so that it has to be loaded anew.
func (d *Dir) Adopt(loaded *Dir) bool {
	a := d.aside
	d.aside = nil
	if a.stale {
		return false
	}
	if loaded == nil {
		return true
	}
	d.changes++
	if d.table != nil && loaded.table != nil && loaded.table != d.table { // listed anew
		loaded.table.follow(d.table)
	}
	d.layers, d.parts, d.table, d.lookups = loaded.layers, loaded.parts, loaded.table, loaded.lookups
	d.redirect, d.moved, d.redirectRead = loaded.redirect, loaded.moved, loaded.redirectRead
	if d.table != nil {
		for _, change := range a.changes { // the upper may have been listed before
			change(d.table)
		}
	}
	return true
}

// OnlyUpper reports whether d is known to be in the upper alone.
func (d *Dir) OnlyUpper() bool { return len(d.parts) == 1 && d.parts[0].layer == Upper }

// list lists the names of d, unless that has been done.
func (s *Stack) list(d *Dir, o LayerDirs) error {
	if d.table != nil {
		return nil
	}
	t := newNameTable()
	parts, err := s.readParts(d, o, t)
	if err != nil {
		return err
	}
	d.parts, d.table, d.redirectRead = parts, t, true
	return nil
}

// loadAnew is loadParts where layers change: the marks of d's parts are read, and no names.
func (s *Stack) loadAnew(d *Dir, o LayerDirs) error {
	if d.parts != nil {
		return nil
	}
	parts, err := s.readParts(d, o, nil)
	if err != nil {
		return err
	}
	d.parts, d.redirectRead = parts, true
	return nil
}

// readParts goes through d's layers for the parts that d has. Their names go into t; nil: they are
// not listed.
func (s *Stack) readParts(d *Dir, o LayerDirs, t *nameTable) ([]part, error) {
	var w partWalk
	followed := s.layersChange && d.redirectRead
	for i := 0; i < len(d.layers); i++ { // a redirect changes the rest
		layer := d.layers[i]
		h, err := o.Layer(int(layer))
		if w.skips(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		m, err := s.readPart(h, layer, t)
		if err != nil {
			return nil, err
		}
		if !w.add(layer, &m) {
			break
		}
		if m.Redirect != "" && !followed { // the first is followed through all layers
			followed = true
			if err := s.follow(d, o, i, &m); err != nil {
				return nil, err
			}
		}
	}
	return w.parts, nil
}

// readPart reads the marks of one part, and its names into t, unless that is nil.
func (s *Stack) readPart(h *sys.Dir, layer uint16, t *nameTable) (whiteout.DirXattrs, error) {
	if t == nil {
		return whiteout.ReadDir(s.names, h)
	}
	m, hidden, err := s.listPart(h, layer, t.merge(layer))
	if err == nil {
		t.hide(hidden, layer)
	}
	return m, err
}

// Subdirs is the number of directories in d. Precondition: loaded, if only to look, and d may merge.
func (d *Dir) Subdirs() int {
	if d.unlisted() {
		return 0
	}
	return d.table.subdirs
}

// Visible is the number of entries that d shows. Precondition: listed.
func (d *Dir) Visible() int { return d.table.visible }

// IsListed reports whether the names of d are known.
func (d *Dir) IsListed() bool { return d.table != nil }

// Empty reports whether d shows no entry. Precondition: listed.
func (d *Dir) Empty() bool { return d.table.visible == 0 }

// Layers are the layers that d may lie in, topmost first.
func (d *Dir) Layers() []uint16 { return d.layers }
