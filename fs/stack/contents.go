package stack

import (
	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/sys"
	"github.com/fuse-overlay/fuse-overlay/whiteout"
)

// Contents is what one layer has in a directory. It may have been read in vain: a layer above may
// be opaque.
type Contents struct {
	xattrs  whiteout.DirXattrs
	entries []sys.Dirent
	hidden  []string // names with a marker
	err     error
}

// Unread stands for contents that could not be read.
func Unread(err error) Contents { return Contents{err: err} }

// Read reads what the i-th of the directory's layers has in it. It appends the entries to buf and
// returns buf. Several goroutines may read at once, each with an o of its own.
func (s *Stack) Read(d *Dir, i int, o LayerDirs, buf []sys.Dirent) (Contents, []sys.Dirent) {
	c, from := Contents{}, len(buf)
	h, err := o.Layer(int(d.layers[i]))
	if err == nil {
		c.xattrs, c.hidden, err = s.listPart(h, d.layers[i], func(e sys.Dirent) { buf = append(buf, e) })
	}
	c.entries, c.err = buf[from:len(buf):len(buf)], err
	return c, buf
}

// Merge is [Stack.Load] for ToList with the contents of all layers of d, topmost first. If a layer
// has an error or a redirect, Merge returns false and changes nothing. An error matters only if no
// layer above is opaque. A redirect changes the layers below.
func (s *Stack) Merge(d *Dir, all []Contents) bool {
	if d.table != nil {
		return true
	}
	t := newNameTable()
	var w partWalk
	for i := range all {
		c, layer := &all[i], d.layers[i]
		if c.err != nil || c.xattrs.Redirect != "" {
			return false
		}
		add := t.merge(layer)
		for _, e := range c.entries {
			add(e)
		}
		t.hide(c.hidden, layer)
		if !w.add(layer, &c.xattrs) {
			break
		}
	}
	d.parts, d.table = w.parts, t
	return true
}

// listPart reads the xattrs of a layer's directory h, and calls add for each entry. The type of a
// whiteout is DT_WHT. hidden are the names that have a marker.
func (s *Stack) listPart(
	h *sys.Dir, layer uint16, add func(sys.Dirent),
) (m whiteout.DirXattrs, hidden []string, err error) {
	m, err = whiteout.ReadDirXattrs(s.names, h)
	if err != nil {
		return m, nil, err
	}
	p := newPart(layer, &m)
	err = h.List(func(e sys.Dirent) error {
		if whiteout.IsMarker(e.Name) {
			if e.Name == whiteout.OpaqueMarker {
				m.Opaque = true
			} else if name, ok := whiteout.Hidden(e.Name); ok {
				hidden = append(hidden, name)
			}
			return nil
		}
		absent, err := s.resolveType(h, &p, &e)
		if err == unix.ENOENT {
			return nil // removed while it was listed
		}
		if err != nil {
			return err
		}
		if absent {
			e.Type = unix.DT_WHT
		}
		add(e)
		return nil
	})
	return m, hidden, err
}

// resolveType reports whether a listed entry is a whiteout. It fills in the type if the file system
// does not list types.
func (s *Stack) resolveType(h *sys.Dir, p *part, e *sys.Dirent) (absent bool, err error) {
	shown := s.layers[p.layer].shown
	if !whiteout.MayBe(e.Type, p.xattrWhiteouts) && (e.Type != unix.DT_REG || !shown.Overrides()) {
		return false, nil
	}
	var st sys.Stat
	err = shown.On(h.At(e.Name)).Stat(&st)
	if err == unix.EIO && shown.Overrides() {
		err = h.At(e.Name).Stat(&st) // a lookup of the name returns the error, the listing does not
	}
	if err != nil {
		return false, err
	}
	e.Type = direntType(st.Mode)
	return whiteout.Is(s.names, h.At(e.Name), &st, p.xattrWhiteouts)
}

// direntType is IFTODT of libc.
func direntType(mode uint32) uint8 { return uint8(mode & unix.S_IFMT >> 12) }
