package stack

import (
	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/sys"
	"github.com/fuse-overlay/fuse-overlay/whiteout"
)

// What a merged directory's index is for at first is its link count, and then its names. A directory without subdirectories has no
// count to be found out, and to list a hundred thousand names takes longer than to look for some of them in each part. So such a large
// directory is left unlisted for as long as only a few of its names are asked for: its parts are known, its index is nil.

// Variables for tests.
var (
	// largeParts is how many bytes the parts of such a directory have together, as their file systems tell: one or two thousand
	// entries.
	largeParts int64 = 64 << 10
	// fewLooks is how many names are looked for before it is listed after all.
	fewLooks = 64
)

// topParts are as many parts as are looked at to find out whether they are large: in vain, mostly, where somebody else could have helped
// to open them.
const topParts = 4

// unlisted reports whether d has been left so.
func (d *Dir) unlisted() bool { return d.index == nil && len(d.parts) > 1 }

// tiredOfLooking counts one name more that is looked for, and reports whether d is one left unlisted that is better listed by now.
func (s *Stack) tiredOfLooking(d *Dir) bool {
	if s.changing || !d.unlisted() {
		return false
	}
	d.looks++
	return d.looks > fewLooks
}

// LeaveUnlisted finds out which parts d has, and reports true, if it is one to be left unlisted. Otherwise, and where anything else than
// that has to be told, it changes nothing.
func (s *Stack) LeaveUnlisted(d *Dir, o Opened) bool {
	if s.listAtOnce || d.parts != nil || len(d.layers) < 2 {
		return false
	}
	var parts []part
	size := int64(0)
	for i, layer := range d.layers {
		if i == topParts && size < largeParts {
			return false
		}
		// Marks come before the next part is opened: a redirect changes where that is.
		m, bytes, ok := s.flatPart(o, layer)
		if !ok {
			return false
		}
		size += bytes
		parts = append(parts, part{layer, m.XattrWhiteouts, m.Impure})
		if m.Opaque {
			break
		}
	}
	if len(parts) < 2 || size < largeParts {
		return false
	}
	d.parts, d.looks = parts, 0
	return true
}

// flatPart tells the marks and the size of a directory's part in a layer, and ok if it has no directory in it, for its link count is 2 (1
// where the file system does not count), and nothing else speaks against leaving it unlisted.
func (s *Stack) flatPart(o Opened, layer uint16) (m whiteout.DirXattrs, size int64, ok bool) {
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

// lookUnlisted looks a name up in an unlisted directory: the topmost part that has the name, or hides it, decides.
func (s *Stack) lookUnlisted(parts []part, o Opened, name string, f *Found) error {
	for i := range parts {
		top, err := s.has(o, &parts[i], name)
		if err != nil {
			return err
		}
		if top == (presence{}) {
			continue
		}
		layer := int(parts[i].layer)
		if top.object {
			if err := s.look(parts, o, name, layer, parts[i].xattrWhiteouts, f); err != nil {
				return err
			}
		}
		if layer != Upper {
			return nil
		}
		if !top.object {
			f.State = Whiteout
		}
		f.Marker = top.marker && !top.whiteout
		f.Below, err = s.shows(o, parts[i+1:], name)
		return err
	}
	return nil
}

// shows reports whether an object shows in parts under a name.
func (s *Stack) shows(o Opened, parts []part, name string) (bool, error) {
	for i := range parts {
		if p, err := s.has(o, &parts[i], name); err != nil || p != (presence{}) {
			return p.object, err
		}
	}
	return false, nil
}

// presence is what one part has under a name.
type presence struct {
	object   bool // to be seen
	whiteout bool // in its place
	marker   bool // a .wh. file; looked for in the upper, and where there is no object
}

// has tells what a part has under a name.
func (s *Stack) has(o Opened, part *part, name string) (p presence, err error) {
	h, err := o.Layer(int(part.layer))
	if err != nil {
		return presence{}, err
	}
	var st sys.Stat
	switch err := s.Shown(int(part.layer), h.At(name)).Stat(&st); err {
	case nil:
		if p.whiteout, err = s.isWhiteout(h.At(name), &st, part.xattrWhiteouts); err != nil {
			return presence{}, err
		}
		p.object = !p.whiteout
	case unix.ENOENT:
	default:
		return presence{}, err
	}
	if p.object && part.layer != Upper {
		return p, nil
	}
	switch err := h.At(whiteout.Marker(name)).Stat(&st); err {
	case nil:
		p.marker = true
	case unix.ENOENT, unix.ENAMETOOLONG:
	default:
		return presence{}, err
	}
	return p, nil
}
