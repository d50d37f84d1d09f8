package merge

import (
	"errors"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/changes"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// Change plans a change.
func (p *planner) Change(c *changes.Change) error {
	if c.Now.IsDir() {
		p.change = c
		return p.out.Change(c)
	}
	if err := p.leaf(c); err != nil {
		return at(c.Path, err)
	}
	return p.out.Change(c)
}

func (p *planner) leaf(c *changes.Change) error {
	hides := p.byPath[path.Dir(c.Path)].hides
	switch {
	case hides && c.Kind == changes.Deleted:
		return nil
	case hides && c.Kind == changes.Unchanged:
		changed := *c
		changed.Kind = changes.Added
		c = &changed
	case c.Kind == changes.Unchanged && c.Now.Nlink <= 1:
		a, err := c.Now.InodeFlags()
		if err != nil {
			return err
		}
		b, err := c.Was.InodeFlags()
		if err != nil || a&flags == b&flags {
			return err
		}
		changed := *c
		changed.Kind = changes.Modified
		c = &changed
	}
	s := &plannedStep{step: step{Path: c.Path}, kind: c.Kind}
	if c.Kind == changes.Deleted {
		return p.deleted(c, s)
	}
	if err := p.keeps(c.Path); err != nil {
		return err
	}
	var err error
	if s.attrs, err = attributesOf(c.Now); err != nil {
		return err
	}
	if err := p.source(c, s); err != nil {
		return err
	}
	s.ino = c.Now.Ino
	p.steps = append(p.steps, s)
	if c.Now.Nlink > 1 {
		p.groups[c.Now.Ino] = append(p.groups[c.Now.Ino], s)
	}
	if c.Kind != changes.Unchanged {
		p.leafChanges(s)
	}
	return nil
}

// leafChanges notes that a name leads to another object.
func (p *planner) leafChanges(s *plannedStep) {
	p.touch(s.Path)
	p.freed[p.naturalWas(s.Path)] = true
}

// deleted plans a removal.
func (p *planner) deleted(c *changes.Change, s *plannedStep) error {
	if err := p.keeps(c.Path); err != nil {
		return err
	}
	var st sys.Stat
	has, err := p.statLower(c.WasPath, &st)
	if err != nil {
		return err
	}
	if has {
		s.Old = objectOf(&st)
	}
	if s.Whiteout, err = p.showsBelow(c.WasPath); err != nil {
		return err
	}
	p.touch(c.Path)
	p.freed[c.WasPath] = true
	p.steps = append(p.steps, s)
	return nil
}

// errHoldsUpper is for a change that would move the upper or the work directory.
var errHoldsUpper = errors.New("holds the upper or its work directory, and is not what it was in the lower: these cannot be merged in place")

// keeps returns an error if the upper or the work directory lies at a path of the lower or below.
func (p *planner) keeps(at string) error {
	for _, k := range p.kept {
		if k == at || strings.HasPrefix(k, at+"/") {
			return errHoldsUpper
		}
	}
	return nil
}

// source finds out what the upper has of a file.
func (p *planner) source(c *changes.Change, s *plannedStep) error {
	if _, err := p.statLower(c.Path, &sys.Stat{}); err != nil { // for mounts
		return err
	}
	dir, err := p.upper.OpenDir(path.Dir(c.Path))
	if err == unix.ENOENT {
		return nil // the lower alone has the name: the object is a copy in the index
	}
	if err != nil {
		return err
	}
	defer dir.Close()
	r := dir.At(path.Base(c.Path))
	var st sys.Stat
	if err := r.Stat(&st); err != nil {
		if err == unix.ENOENT {
			err = nil
		}
		return err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFREG {
		x, err := p.dresser.names.ReadFile(r)
		if err != nil {
			return err
		}
		s.metacopy = x.Metacopy
	}
	if s.metacopy {
		return p.taken(c, s)
	}
	// The inode of another type stands for an object that only root can make.
	s.inUpper = st.Mode&unix.S_IFMT == c.Now.Type()
	s.From = source{Upper: c.Path, Is: objectOf(&st)}
	return nil
}

// taken finds out whether a file of the lower can become that of a metacopy: it has exactly its
// data, and no further name.
func (p *planner) taken(c *changes.Change, s *plannedStep) error {
	if c.Now.Nlink > 1 || c.Aspects&(changes.Content|changes.Type) != 0 || c.Was == nil ||
		c.Kind != changes.Modified && c.Kind != changes.Renamed {
		return nil
	}
	dir, err := p.lower.OpenDir(path.Dir(c.WasPath))
	if err == unix.ENOENT {
		return nil // a further lower has it
	}
	if err != nil {
		return err
	}
	defer dir.Close()
	r := dir.At(path.Base(c.WasPath))
	var st sys.Stat
	if err := r.Stat(&st); err != nil {
		if err == unix.ENOENT {
			err = nil
		}
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Nlink != 1 || st.Size != c.Now.Size {
		return nil
	}
	if x, err := p.dresser.names.ReadFile(r); err != nil || x.Metacopy {
		return err
	}
	s.takes, s.From.Is = c.WasPath, objectOf(&st)
	return nil
}
