package changes

import (
	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/ondisk"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// firstName is the first name of a file with several names.
type firstName struct {
	path    string
	wasIno  uint64 // of the object that has this name in the lowers; 0: none
	kind    Kind
	aspects Aspects
}

// leaf reports an object of the upper that is not a directory.
func (w *walk) leaf(d *openDir, p pair, name string) error {
	c := Change{Kind: Added, Path: p.path, Now: p.now}
	lacksData := false
	var err error
	if !d.lowerOnly[name] {
		if lacksData, err = w.followFile(d, &p, name, &c); err != nil {
			return at(p.path, err)
		}
	}
	if c.Kind == Renamed {
		defer p.was.Forget()
	}
	c.Was, c.WasPath = p.was, p.wasPath
	if p.now.Nlink > 1 {
		if first := w.links[p.now.Ino]; first != nil {
			return w.further(&c, first)
		}
	}
	if p.was != nil {
		if c.Kind == Added {
			c.Kind = Modified
		}
		if c.Aspects, err = compare(p.now, p.was, lacksData); err != nil {
			return at(p.path, err)
		}
	}
	if c.Kind == Modified && c.Aspects == 0 {
		if d.lowerOnly[name] {
			return nil
		}
		c.Kind = Unchanged
	}
	if p.now.Nlink > 1 {
		first := firstName{path: p.path, kind: c.Kind, aspects: c.Aspects}
		if p.was != nil && c.Kind != Renamed {
			first.wasIno = p.was.Ino
		}
		w.links[p.now.Ino] = &first
	} else if c.Kind == Unchanged && !w.Unchanged {
		return nil
	}
	return w.visitor.Change(&c)
}

// further reports a further name of a file.
func (w *walk) further(c *Change, first *firstName) error {
	if c.Kind != Renamed && c.Was != nil && c.Was.Ino == first.wasIno { // it was a name of the file in the lowers as well
		c.Kind, c.Aspects = first.kind, first.aspects
	} else {
		c.Kind, c.From = Linked, first.path
	}
	return w.visitor.Change(c)
}

// followFile finds out whether a file of the upper is a metacopy. If its data lies under another
// path than its own, the file was renamed. Then followFile sets the kind of c, and what the file is
// compared with, which the caller forgets.
func (w *walk) followFile(d *openDir, p *pair, name string, c *Change) (lacksData bool, err error) {
	if !p.now.IsRegular() || !w.HasLowers() {
		return false, nil
	}
	x, err := w.names.ReadFile(d.up.At(name))
	if err != nil || !x.Metacopy {
		return false, err
	}
	if x.Redirect == "" {
		return true, nil
	}
	from, _, err := p.source(d, x.Redirect)
	if err != nil || from == p.wasPath {
		return true, err
	}
	still, err := w.merged.Lookup(from)
	if err != nil {
		return false, err
	}
	defer still.Forget()
	if still != nil && still.Ino == p.now.Ino {
		return false, nil // a link of the file, which has its path still
	}
	was, err := w.lowers.Lookup(from)
	if err != nil {
		return false, err
	}
	if was == nil || !was.IsRegular() { // data that no name of the lowers leads to
		was.Forget()
		return false, nil
	}
	p.was, p.wasPath = was, from
	c.Kind, c.From = Renamed, from
	return true, nil
}

// lacksData returns the change of a metacopy in an upper without lowers; nil: it is none. A
// metacopy cannot be shown then. Only its redirect is known.
func (w *walk) lacksData(d *openDir, p *pair, name string) (*Change, error) {
	x, err := readMetacopy(w.names, d.up.At(name))
	if err != nil || !x.Metacopy || w.filter.place(p.path) != inside {
		return nil, err
	}
	c := &Change{Kind: Modified, Path: p.path}
	if x.Redirect == "" {
		return c, nil
	}
	from, _, err := p.source(d, x.Redirect)
	if from != p.wasPath {
		c.Kind, c.From = Renamed, from
	}
	return c, err
}

// readMetacopy is [ondisk.Names.ReadFile] for an object of any type, or none.
func readMetacopy(names ondisk.Names, r sys.Ref) (x ondisk.FileXattrs, err error) {
	var st sys.Stat
	switch err := r.Stat(&st); {
	case err == unix.ENOENT, err == nil && st.Mode&unix.S_IFMT != unix.S_IFREG:
		return x, nil
	case err != nil:
		return x, err
	}
	return names.ReadFile(r)
}
