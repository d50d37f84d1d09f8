package stack

import (
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
	"github.com/fuse-overlay/fuse-overlay/whiteout"
)

// Use is what a directory is loaded for.
type Use uint8

const (
	// ToLookUp: names are looked up. A large merged directory may stay unlisted.
	ToLookUp Use = iota
	// ToChange: names are looked up and changed. The names of a merged directory are listed.
	ToChange
	// ToList: all names are listed.
	ToList
	// ToListAnew: all names are read once more. It is for a directory that [Dir.Aside] returned.
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

// Load finds the parts of d, and lists its names if the use needs them.
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

// loadParts finds the parts of d. It lists a directory that may merge: the link count needs the
// number of subdirectories, and the list has the opaque markers.
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
	m, err := whiteout.ReadDirXattrs(s.names, h) // an opaque marker would hide nothing: there is one layer
	if err != nil {
		return err
	}
	if m.Redirect != "" { // other layers may have parts
		return s.list(d, o)
	}
	d.parts = []part{newPart(d.layers[0], &m)}
	return nil
}

// list lists the names of d, unless they are known.
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

// loadAnew is loadParts where layers change: it reads the xattrs of the parts, and no names.
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

// readParts returns the parts that d has in its layers, and adds their names to t. If t is nil, it
// lists no names.
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
		if m.Redirect != "" && !followed { // the first one is followed through all layers
			followed = true
			if err := s.follow(d, o, i, &m); err != nil {
				return nil, err
			}
		}
	}
	return w.parts, nil
}

// readPart returns the xattrs of one part, and adds its names to t, unless t is nil.
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

// aside is what [Dir.Adopt] needs to know of a directory that was in use while a copy was loaded.
type aside struct {
	changes []nameChange
	stale   bool // the directory has got a part in the upper
}

// Aside begins a load of d while others use d. It returns a copy. The caller loads the copy and
// passes it to [Dir.Adopt]. One copy is loaded at a time.
func (d *Dir) Aside() Dir {
	d.aside = &aside{}
	loaded := *d
	loaded.aside = nil
	return loaded
}

// Adopt takes over what the load of the copy has found; nil: the load failed. It returns false if d
// has got a part in the upper since, so that it has to be loaded anew.
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
	d.redirect, d.moved = loaded.redirect, loaded.moved
	d.redirectRead, d.followed = loaded.redirectRead, loaded.followed
	if d.table != nil {
		for i := range a.changes { // the load may have listed the upper before them
			a.changes[i].apply(d.table)
		}
	}
	return true
}
