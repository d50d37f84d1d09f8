package stack

import (
	"cmp"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/sys"
	"github.com/fuse-overlay/fuse-overlay/whiteout"
)

// Where layers are changed by others ([Stack.ExpectChanges]), nothing that was found in a layer is taken for granted later. A name is looked
// for in each part of its directory, every time. A directory is listed anew for each listing; its index is kept for the places of
// the names alone, so that listings under way go on. Which parts a directory has is found out anew when its own name is looked up.

// ExpectChanges has the stack take nothing for granted that it has found in a layer. It is called before anything is looked up.
func (s *Stack) ExpectChanges() { s.changing = true }

// Part is an object of one layer.
type Part struct {
	Layer uint16
	Dev   uint64
	Ino   uint64
}

// loadAnew is Load where layers change: the marks of d's parts are read, and no names.
func (s *Stack) loadAnew(d *Dir, o Opened) error {
	if d.parts != nil {
		return nil
	}
	var parts []part
	for i := 0; i < len(d.layers); i++ { // a redirect changes the rest
		layer := d.layers[i]
		h, err := o.Layer(int(layer))
		if len(parts) > 0 && goneMeanwhile(err) {
			continue
		}
		if err != nil {
			return err
		}
		m, err := whiteout.ReadDir(s.names, h)
		if err != nil {
			return err
		}
		parts = append(parts, part{layer, m.XattrWhiteouts, m.Impure})
		if m.Opaque {
			break
		}
		if m.Redirect != "" && !d.led {
			d.led = true
			if err := s.follow(d, o, i, &m); err != nil {
				return err
			}
		}
	}
	d.parts, d.led = parts, true
	return nil
}

// goneMeanwhile reports whether a layer has no directory any more where it had one.
func goneMeanwhile(err error) bool {
	return err == unix.ENOENT || err == unix.ENOTDIR || err == unix.ELOOP
}

// follow puts the names of x in the places that they have in the index before, and others behind them.
func (x *index) follow(old *index) {
	x.next, x.first, x.changed = old.next, old.first, true
	x.era, x.former, x.formerFirst = old.era, old.former, old.formerFirst
	for _, e := range x.order {
		if before := old.known(e.name); before != nil {
			e.cookie = before.cookie
			continue
		}
		e.cookie = x.next
		x.next++
	}
	slices.SortFunc(x.order, func(a, b *entry) int { return cmp.Compare(a.cookie, b.cookie) })
	if x.next >= maxPlace {
		x.renumber()
	}
}

// lookAnew is Lookup for layers that change. The topmost part that has the name, or hides it,
// decides. For a directory, f.Parts holds all parts that may take part. parts are those of the directory.
func (s *Stack) lookAnew(parts []part, o Opened, name string, f *Found) error {
	var err error
	if len(parts) == 1 {
		err = s.look(parts, o, name, int(parts[0].layer), parts[0].xattrWhiteouts, f)
	} else {
		err = s.lookUnlisted(parts, o, name, f)
	}
	if err != nil || !f.IsDir() {
		return err
	}
	f.Parts = []Part{{uint16(f.Layer), f.Stat.Dev, f.Stat.Ino}}
	hidden := f.Marker
	for i := range parts {
		p := &parts[i]
		switch layer := int(p.layer); {
		case layer < f.Layer:
			continue
		case hidden:
			return nil
		case layer > f.Layer:
			if more, err := s.addPart(o, p, name, f); err != nil || !more {
				return err
			}
		}
		if p.layer != Upper { // beside the directory it hides what lies below
			if hidden, err = s.hasMarker(o, p, name); err != nil {
				return err
			}
		}
	}
	return nil
}

// addPart adds what a part of the parent has to the directory found, and reports whether those below it may have more.
func (s *Stack) addPart(o Opened, p *part, name string, f *Found) (more bool, err error) {
	h, err := o.Layer(int(p.layer))
	if err != nil {
		return false, err
	}
	var st sys.Stat
	switch err := s.Shown(int(p.layer), h.At(name)).Stat(&st); {
	case err == unix.ENOENT:
		return true, nil
	case err != nil:
		return false, err
	case st.Mode&unix.S_IFMT != unix.S_IFDIR:
		return false, nil
	}
	f.Dirs = append(f.Dirs, p.layer)
	f.Parts = append(f.Parts, Part{p.layer, st.Dev, st.Ino})
	return true, nil
}

func (s *Stack) hasMarker(o Opened, p *part, name string) (bool, error) {
	h, err := o.Layer(int(p.layer))
	if err != nil {
		return false, err
	}
	var st sys.Stat
	switch err := h.At(whiteout.Marker(name)).Stat(&st); err {
	case nil:
		return true, nil
	case unix.ENOENT, unix.ENAMETOOLONG:
		return false, nil
	default:
		return false, err
	}
}

// Renew makes d the directory that lies in the given layers now, those of a [Found]. If redirects
// led to parts of d, Renew changes nothing.
func (d *Dir) Renew(layers []uint16, parent *Dir) {
	if len(d.moved) > 0 {
		return
	}
	d.layers, d.parts, d.above = layers, nil, parent.parts
	d.defaultACL, d.defaultACLKnown, d.impure = nil, false, false
}
