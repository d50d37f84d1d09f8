package stack

import (
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
	"github.com/fuse-overlay/fuse-overlay/whiteout"
)

// A merged directory is listed when it is first used, because its link count needs the number of
// subdirectories. If the parts of a directory have no subdirectories, its link count is known. A
// large directory of this kind stays unlisted until some of its names have been looked up: its
// parts are known, its name table is nil. To look some names up in each part takes less time than
// to list a hundred thousand names.

// Variables for tests.
var (
	// minUnlistedBytes is the least size of all parts together, by st_size: that of one or two
	// thousand entries.
	minUnlistedBytes int64 = 64 << 10
	// maxUnlistedLookups is how many names are looked up before the directory is listed.
	maxUnlistedLookups = 64
)

// maxSmallParts is how many parts are opened before their size has to reach minUnlistedBytes. A
// small directory is listed in the end, and two goroutines open its parts faster than one.
const maxSmallParts = 4

// unlisted reports whether the parts of d are known, several, and not listed.
func (d *Dir) unlisted() bool { return d.table == nil && len(d.parts) > 1 }

// isLookedUpOften counts one more lookup. It reports whether d is unlisted and has to be listed
// now.
func (s *Stack) isLookedUpOften(d *Dir) bool {
	if s.layersChange || !d.unlisted() {
		return false
	}
	d.lookups++
	return d.lookups > maxUnlistedLookups
}

// LeaveUnlisted finds the parts of d and returns true if d can stay unlisted. Otherwise, and after
// any error, it returns false and changes nothing.
func (s *Stack) LeaveUnlisted(d *Dir, o LayerDirs) bool {
	if s.listAtOnce || d.parts != nil || len(d.layers) < 2 {
		return false
	}
	var w partWalk
	size := int64(0)
	for i, layer := range d.layers {
		if i == maxSmallParts && size < minUnlistedBytes {
			return false
		}
		// The xattrs are read before the next part is opened: a redirect changes where that is.
		m, bytes, ok := s.flatPart(o, layer)
		if !ok {
			return false
		}
		size += bytes
		if !w.add(layer, &m) {
			break
		}
	}
	if len(w.parts) < 2 || size < minUnlistedBytes {
		return false
	}
	d.parts, d.lookups = w.parts, 0
	return true
}

// flatPart returns the xattrs and the size of the directory's part in a layer. ok is false if the
// part may have subdirectories (a link count other than 2), has a redirect, or cannot be read.
func (s *Stack) flatPart(o LayerDirs, layer uint16) (m whiteout.DirXattrs, size int64, ok bool) {
	if s.layers[layer].shown.Overrides() {
		return m, 0, false
	}
	h, err := o.Layer(int(layer))
	if err != nil {
		return m, 0, false
	}
	var st sys.Stat
	if err := h.Ref().Stat(&st); err != nil || st.Nlink != 2 {
		return m, 0, false
	}
	m, err = whiteout.ReadDir(s.names, h)
	return m, st.Size, err == nil && m.Redirect == ""
}
