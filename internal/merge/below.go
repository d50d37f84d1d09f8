package merge

import (
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/changes"
	"github.com/fuse-overlay/fuse-overlay/internal/ondisk"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
	"github.com/fuse-overlay/fuse-overlay/internal/view"
	"github.com/fuse-overlay/fuse-overlay/whiteout"
)

// marksOf returns the marks of a directory that gets a new place in the lower: without them the
// wrong directory of the further lowers would show in it, or none.
func (p *planner) marksOf(d *changes.Dir) (marks, error) {
	switch {
	case p.below == nil:
		return marks{}, nil
	case d.Renamed:
		from, shows, err := p.mergesBelow(d.WasPath)
		switch {
		case err != nil:
			return marks{}, err
		case shows && len(from)+1 > ondisk.MaxRedirect:
			return marks{}, unix.ENAMETOOLONG
		case shows:
			return marks{Redirect: "/" + from}, nil
		}
	case d.Was != nil && !d.Replaces: // it merges with the directory of the same path
		return marks{}, nil
	}
	n, err := p.lookUpBelow(p.naturalWas(d.Path))
	defer n.Forget()
	return marks{Opaque: n.IsDir()}, err
}

// showsBelow reports whether a further lower shows something at a path of the lowers, if the lower
// has nothing there.
func (p *planner) showsBelow(was string) (bool, error) {
	if p.below == nil {
		return false, nil
	}
	n, err := p.lookUpBelow(was)
	n.Forget()
	return n != nil, err
}

// lookUpBelow returns what further lowers show at a path of the lowers, if the lower has nothing
// there; nil: nothing.
func (p *planner) lookUpBelow(was string) (*view.Node, error) {
	dir, shows, err := p.placeBelow(path.Dir(was))
	if !shows || err != nil {
		return nil, err
	}
	up, err := p.lower.OpenDir(path.Dir(was))
	switch err {
	case nil:
		marked, err := whiteout.HasMarker(up, path.Base(was))
		up.Close()
		if marked || err != nil {
			return nil, err // the marker stays
		}
	case unix.ENOENT:
	default:
		return nil, err
	}
	return p.below.Lookup(path.Join(dir, path.Base(was)))
}

// mergesBelow returns the path in the further lowers of the directory that merges with the one at a
// path of the lowers.
func (p *planner) mergesBelow(was string) (below string, shows bool, err error) {
	below, shows, err = p.placeBelow(was)
	if !shows || err != nil {
		return "", false, err
	}
	n, err := p.below.Lookup(below)
	defer n.Forget()
	return below, n.IsDir(), err
}

// placeBelow returns the path in the further lowers that belongs to a directory at a path of the
// lowers. shows is false if the lower hides what is there.
func (p *planner) placeBelow(was string) (below string, shows bool, err error) {
	d, err := p.lower.OpenDir("")
	if err != nil {
		return "", false, err
	}
	defer func() {
		if d != nil {
			d.Close()
		}
	}()
	if opaque, err := p.isOpaque(d); opaque || err != nil {
		return "", false, err
	}
	if was == "." {
		return "", true, nil
	}
	for name := range strings.SplitSeq(was, "/") {
		next := path.Join(below, name)
		if d == nil {
			below = next
			continue
		}
		child, at, hidden, err := p.stepBelow(d, name, below)
		d.Close()
		d = child
		if hidden || err != nil {
			return "", false, err
		}
		below = at
	}
	return below, true, nil
}

func (p *planner) isOpaque(d *sys.Dir) (bool, error) {
	x, err := whiteout.ReadDir(p.dresser.names, d)
	return x.Opaque, err
}

// stepBelow goes from a directory of the lower, which belongs to the path below, to an entry. child
// is that in the lower; nil: the lower does not have it.
func (p *planner) stepBelow(d *sys.Dir, name, below string) (child *sys.Dir, at string, hidden bool, err error) {
	at = path.Join(below, name)
	marked, err := whiteout.HasMarker(d, name)
	if marked || err != nil {
		return nil, "", marked, err
	}
	child, err = d.OpenDir(name)
	switch err {
	case nil:
	case unix.ENOENT:
		return nil, at, false, nil
	case unix.ENOTDIR, unix.ELOOP:
		return nil, "", true, nil
	default:
		return nil, "", false, err
	}
	x, err := whiteout.ReadDir(p.dresser.names, child)
	if err != nil || x.Opaque {
		child.Close()
		return nil, "", x.Opaque, err
	}
	if rest, absolute := strings.CutPrefix(x.Redirect, "/"); absolute {
		at = rest
	} else if x.Redirect != "" {
		at = path.Join(below, x.Redirect)
	}
	return child, at, false, nil
}
