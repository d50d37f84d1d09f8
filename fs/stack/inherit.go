package stack

import "github.com/fuse-overlay/fuse-overlay/internal/sys"

// Inherited are the open layers of a stack whose process has ended. The process has checked them,
// and its locks last as long as the descriptors.
type Inherited struct {
	Lowers, DataOnly []sys.InheritedDir
	Upper, Work      *sys.InheritedDir // nil: there is none
	Overlap          bool
}

// Inheritable returns what the next process needs for [Config].Inherited.
func (s *Stack) Inheritable() *Inherited {
	i := &Inherited{Overlap: s.overlap}
	for _, l := range s.layers[Upper+1:] {
		i.Lowers = append(i.Lowers, l.root.Inheritable())
	}
	for _, root := range s.dataOnly {
		i.DataOnly = append(i.DataOnly, root.Inheritable())
	}
	if root := s.layers[Upper].root; root != nil {
		dir := root.Inheritable()
		i.Upper = &dir
	}
	if s.workRoot != nil {
		dir := s.workRoot.Inheritable()
		i.Work = &dir
	}
	return i
}

// Descriptors returns all descriptors.
func (i *Inherited) Descriptors() (fds []int) {
	add := func(d *sys.InheritedDir) {
		if d == nil {
			return
		}
		fds = append(fds, d.FD)
		if d.Clone >= 0 {
			fds = append(fds, d.Clone)
		}
	}
	for n := range i.Lowers {
		add(&i.Lowers[n])
	}
	for n := range i.DataOnly {
		add(&i.DataOnly[n])
	}
	add(i.Upper)
	add(i.Work)
	return fds
}

func (s *Stack) findOverlap(c Config) (err error) {
	if c.Inherited != nil {
		s.overlap = c.Inherited.Overlap
		return nil
	}
	s.overlap, err = checkOverlap(c)
	return err
}

func (s *Stack) inheritLowers(i *Inherited) {
	for n := range i.Lowers {
		s.layers[n+1].root = sys.InheritDir(i.Lowers[n])
	}
	for _, d := range i.DataOnly {
		s.dataOnly = append(s.dataOnly, sys.InheritDir(d))
	}
}

// inheritUpper is openUpper for a stack that changes its upper.
func (s *Stack) inheritUpper(c Config) error {
	upper, work := sys.InheritDir(*c.Inherited.Upper), sys.InheritDir(*c.Inherited.Work)
	s.layers[Upper].root, s.workRoot = upper, work
	if err := s.setDevice(Upper); err != nil {
		return &Error{roleUpper, c.Upper, err}
	}
	return s.prepareWork(c, upper, work)
}

// InheritedDir is a directory that a process before this one knew, with the layers that it may lie
// in.
func InheritedDir(layers []uint16) Dir { return Dir{layers: layers} }

// RemovedDir is a directory that has lost its name, and lay in a layer. It is empty.
func RemovedDir(layer int) Dir {
	l := uint16(layer)
	return Dir{layers: []uint16{l}, parts: []part{{layer: l}}, table: newNameTable()}
}

// LiesElsewhere reports whether a redirect has led to the directory or to a part of it.
func (d *Dir) LiesElsewhere() bool { return d.redirect != "" || d.followed || len(d.moved) > 0 }
