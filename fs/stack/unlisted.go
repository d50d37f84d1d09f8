package stack

import (
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
	"github.com/fuse-overlay/fuse-overlay/whiteout"
)

// What a merged directory's name table is for at first is its link count, and then its names. A directory without subdirectories has no
// count to be found out, and to list a hundred thousand names takes longer than to look for some of them in each part. So such a large
// directory is left unlisted for as long as only a few of its names are asked for: its parts are known, its name table is nil.

// Variables for tests.
var (
	// minUnlistedBytes is how many bytes the parts of such a directory have together, as their file systems tell: one or two thousand
	// entries.
	minUnlistedBytes int64 = 64 << 10
	// maxUnlistedLookups is how many names are looked for before it is listed after all.
	maxUnlistedLookups = 64
)

// maxSmallParts are as many parts as are looked at to find out whether they are large: in vain, mostly, where somebody else could have helped
// to open them.
const maxSmallParts = 4

// unlisted reports whether d has been left so.
func (d *Dir) unlisted() bool { return d.table == nil && len(d.parts) > 1 }

// isLookedUpOften counts one name more that is looked for, and reports whether d is one left unlisted that is better listed by now.
func (s *Stack) isLookedUpOften(d *Dir) bool {
	if s.layersChange || !d.unlisted() {
		return false
	}
	d.lookups++
	return d.lookups > maxUnlistedLookups
}

// LeaveUnlisted finds out which parts d has, and reports true, if it is one to be left unlisted. Otherwise, and where anything else than
// that has to be told, it changes nothing.
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
		// Marks come before the next part is opened: a redirect changes where that is.
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

// flatPart tells the marks and the size of a directory's part in a layer, and ok if it has no directory in it, for its link count is 2 (1
// where the file system does not count), and nothing else speaks against leaving it unlisted.
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
