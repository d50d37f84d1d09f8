package stack

import "github.com/fuse-overlay/fuse-overlay/internal/sys"

// Upper is the number of the writable layer. Lowers follow from 1, the topmost first. A read-only
// stack begins with 1.
const Upper = 0

// LayerDirs opens one merged directory in its layers. What it has opened stays open for as long as
// the call that it is passed to.
type LayerDirs interface {
	// Layer opens the directory in a layer.
	Layer(layer int) (*sys.Dir, error)
	// Has reports whether Layer has opened the directory in a layer already.
	Has(layer int) bool
	// Path is where the directory lies below a layer's root.
	Path(layer int) string
}

// part is the directory that one layer contributes to a merged directory.
type part struct {
	layer          uint16
	xattrWhiteouts bool // empty files in it may be whiteouts
	impure         bool // its entries may have overlay xattrs
}

// Dir is a merged directory. The caller serializes all use of it. [Dir.Aside] and [Stack.Resolve]
// are for a caller that must not wait for a layer meanwhile.
type Dir struct {
	layers  []uint16   // where the directory may have parts, topmost first
	parts   []part     // nil until loaded; never changed in place
	table   *nameTable // nil until the names are listed
	lookups int        // names looked up while the directory was unlisted

	// redirect is that of the upper's part. The layers below have the directory under it; empty:
	// under its own name.
	redirect string
	// moved are the places of parts that do not lie under the directory's name in their layer's
	// part of the parent. It is written before another goroutine knows the directory, and by
	// renames.
	moved []moved
	// above are the parts of the parent when this directory was looked up: a redirect may name a
	// directory beside this one.
	above []part

	// redirectRead: a load has looked for a redirect. Where layers change, later loads do not
	// follow another one.
	redirectRead bool
	// followed: a redirect has decided where the layers below have the directory. Perhaps nowhere:
	// then moved is empty.
	followed bool
	changes  uint64 // counts changes of the names, and of where the directory lies
	aside    *aside // nil: no copy is being loaded

	defaultACL      []byte // of the upper's directory, for new entries
	defaultACLKnown bool
	impure          bool // the impure xattr was set after the load
}

// NewEmptyDir returns a directory that was just made in the upper. It is empty, and no lower shows
// through it.
func NewEmptyDir() Dir {
	return Dir{layers: []uint16{Upper}, parts: []part{{layer: Upper}}, table: newNameTable()}
}

// HasUpper reports whether the directory has a part in the upper, so that entries can be made in
// it.
func (d *Dir) HasUpper() bool { return d.layers[0] == Upper }

// Top is the layer that the directory's attributes come from.
func (d *Dir) Top() int { return int(d.layers[0]) }

// AddUpper adds a part in the upper after the copy-up of the directory.
func (d *Dir) AddUpper() {
	d.changes++
	if d.aside != nil {
		d.aside.stale = true
	}
	d.layers = append([]uint16{Upper}, d.layers...)
	if d.table != nil {
		d.parts = append([]part{{layer: Upper}}, d.parts...)
	} else {
		d.parts = nil // it may merge from now on: it has to be loaded again
	}
	d.defaultACLKnown = false
}

// MayMerge reports whether the directory may have several parts. The answer is exact after
// [Stack.Load].
func (d *Dir) MayMerge() bool {
	if d.parts != nil {
		return len(d.parts) > 1
	}
	return len(d.layers) > 1
}

// HasLower reports whether the directory has a part in a lower. Precondition: loaded.
func (d *Dir) HasLower() bool { return d.parts[len(d.parts)-1].layer != Upper }

// TopLower is the topmost lower that has a part, Upper if none has. Precondition: loaded.
func (d *Dir) TopLower() int {
	for _, p := range d.parts {
		if p.layer != Upper {
			return int(p.layer)
		}
	}
	return Upper
}

// OnlyUpper reports whether the directory is known to have one part, in the upper.
func (d *Dir) OnlyUpper() bool { return len(d.parts) == 1 && d.parts[0].layer == Upper }

// Layers are the layers that the directory may have parts in, topmost first.
func (d *Dir) Layers() []uint16 { return d.layers }

// ForgetDefaultACL makes the next creation read the default ACL anew.
func (d *Dir) ForgetDefaultACL() { d.defaultACLKnown = false }

// impureIn reports whether the entries that a layer has of a directory may have overlay xattrs.
func impureIn(parts []part, layer int) bool {
	for _, p := range parts {
		if int(p.layer) == layer {
			return p.impure
		}
	}
	return false
}

// IsListed reports whether the names are known.
func (d *Dir) IsListed() bool { return d.table != nil }

// Names returns the length of the name table: 0 if the names are not known.
func (d *Dir) Names() int {
	if d.table == nil {
		return 0
	}
	return len(d.table.order)
}

// Subdirs is the number of directories in the directory. Precondition: loaded, and it may merge.
func (d *Dir) Subdirs() int {
	if d.unlisted() {
		return 0
	}
	return d.table.subdirs
}

// Visible is the number of entries that show. Precondition: listed.
func (d *Dir) Visible() int { return d.table.visible }

// Empty reports whether no entry shows. Precondition: listed.
func (d *Dir) Empty() bool { return d.table.visible == 0 }
