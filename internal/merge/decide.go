package merge

import (
	"cmp"
	"fmt"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/changes"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// isFree reports whether nothing of the merged tree shows what the lower has at a path, but for the
// object that takes it.
func (p *planner) isFree(was string) bool {
	for at := was; at != "."; at = path.Dir(at) {
		switch {
		case at != was && p.moved[at]:
			return false
		case p.freed[at]:
			return true
		}
	}
	return false
}

// complete decides what could not be decided during the walk.
func (p *planner) complete() error {
	for _, g := range p.gathers {
		if !p.isFree(g.From) {
			return at(g.From, errShownTwice)
		}
		if err := p.keeps(g.From); err != nil {
			return at(g.From, err)
		}
	}
	for _, s := range p.steps {
		if s.kind != 0 && s.kind != changes.Deleted {
			p.chooseSource(s)
		}
	}
	l := p.list
	for _, s := range p.steps {
		if s.kind == changes.Unchanged && s.From == (source{}) {
			continue
		}
		l.Steps = append(l.Steps, s.step)
		if s.Dress != nil {
			p.owners[ids{s.attrs.UID, s.attrs.GID}] = s.Path
		}
		if s.attrs.Flags&protection != 0 {
			l.Late = append(l.Late, late{s.Path, s.attrs.Flags})
		}
	}
	for _, d := range slices.Backward(p.dirs) {
		if !d.dirty {
			continue
		}
		if err := p.mayChange(d); err != nil {
			return at(d.path, err)
		}
		l.Dirs = append(l.Dirs, dress{d.path, d.attributes})
		if !d.sameOwner {
			p.owners[ids{d.UID, d.GID}] = d.path
		}
	}
	l.Gathers = p.gathers
	slices.SortStableFunc(l.Gathers, func(a, b gather) int { // what is in a directory goes before it
		return cmp.Compare(strings.Count(b.From, "/"), strings.Count(a.From, "/"))
	})
	return nil
}

// chooseSource decides where the object of a name comes from.
func (p *planner) chooseSource(s *plannedStep) {
	group := p.groups[s.ino]
	if len(group) < 2 {
		if s.kind == changes.Unchanged {
			s.From = source{}
		} else {
			p.chooseAlone(s)
		}
		return
	}
	if s != group[0] {
		return // it was decided with the first
	}
	unchanged := !slices.ContainsFunc(group, func(s *plannedStep) bool { return s.kind != changes.Unchanged })
	if unchanged {
		for _, s := range group {
			s.From = source{}
		}
		return
	}
	slices.SortStableFunc(group, func(a, b *plannedStep) int { return cmp.Compare(b.rank(), a.rank()) })
	first := group[0]
	p.chooseAlone(first)
	for _, s := range group {
		if s.kind == changes.Unchanged {
			p.leafChanges(s)
		}
		if s == first || p.list.Renames && s.inUpper {
			if s != first && p.dressAll {
				s.Dress = &s.attrs
			}
			continue
		}
		link := made{Path: s.Path, staged: first.From.Staged}
		if link.staged == "" {
			link.upper = first.From.Upper
		}
		s.From = source{Staged: p.make(link)}
	}
}

// rank is higher for a name that the upper has.
func (s *plannedStep) rank() int {
	if s.inUpper {
		return 1
	}
	return 0
}

// chooseAlone decides where an object comes from that has this name alone, or this one first.
func (p *planner) chooseAlone(s *plannedStep) {
	switch {
	case s.takes != "" && !slices.ContainsFunc(p.gathers, func(g gather) bool { return g.From == s.takes }) && p.isFree(s.takes):
		name := fmt.Sprintf("g%d", len(p.gathers))
		p.gathers = append(p.gathers, gather{From: s.takes, Is: s.From.Is, To: name})
		s.From, s.Dress = source{Staged: name}, &s.attrs
	case p.list.Renames && s.inUpper && !s.metacopy:
		if p.dressAll {
			s.Dress = &s.attrs
		}
	default:
		s.From = source{Staged: p.make(made{Path: s.Path})}
	}
}

// mayChange returns an error if names in a directory of the lower are to change, and this process
// must not change any there. An owner can give itself the permission.
func (p *planner) mayChange(d *plannedDir) error {
	if d.isNew || !d.named {
		return nil
	}
	dir, err := p.lower.OpenDir(d.was)
	if err != nil {
		return err
	}
	defer dir.Close()
	err = dir.MayChange()
	if err != unix.EACCES {
		return err
	}
	var st sys.Stat
	if errStat := dir.Ref().Stat(&st); errStat != nil {
		return errStat
	}
	if p.mayOwn(&st) {
		return nil
	}
	return err
}
