package check

import (
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/ondisk"
	"github.com/fuse-overlay/fuse-overlay/internal/quote"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
	"github.com/fuse-overlay/fuse-overlay/whiteout"
)

// redirect checks the redirect of a directory, and sets what the directory merges with.
func (w *layerWalk) redirect(d *dir, o *object) error {
	if d.Redirect == "" || d.parent == nil {
		return nil
	}
	to := quote.Path(d.Redirect)
	switch {
	case d.Opaque:
		w.add(UselessRedirect, d.path, to, nil)
		return nil
	case !ondisk.ValidRedirect(d.Redirect):
		d.merges = false
		w.add(InvalidRedirect, d.path, to, w.makeOpaque(o))
		return nil
	case w.alone:
		d.merges = false
		return nil
	}
	if refused, err := w.refuses(d); refused || err != nil {
		w.add(UntrustedRedirect, d.path, to, nil)
		return err
	}
	d.merges = true
	if target, absolute := strings.CutPrefix(d.Redirect, "/"); absolute {
		d.below = target
	} else {
		d.below, d.merges = path.Join(path.Dir(d.below), d.Redirect), d.parent.merges
	}
	return w.target(d, to)
}

// target checks where the redirect of a directory leads.
func (w *layerWalk) target(d *dir, to string) error {
	v, err := w.from(w.at + 1)
	if err != nil {
		return err
	}
	found := false
	if v != nil && d.merges {
		n, err := v.Lookup(d.below)
		found = n.IsDir() || err != nil // an error is a finding of the layer below
		n.Forget()
	}
	other := w.targets[d.below]
	switch {
	case !found:
		d.merges = false
		w.add(BrokenRedirect, d.path, to, nil)
	case other != "":
		w.add(TwoRedirects, d.path, "another is that of "+quote.Path(other), nil)
	default:
		w.targets[d.below] = d.path
	}
	return nil
}

// refuses reports whether a mount refuses to follow the redirect of a directory.
func (w *layerWalk) refuses(d *dir) (bool, error) {
	if !d.ByUser {
		return false, nil
	}
	parent, err := w.selfNode(d.parent)
	if parent == nil || err != nil {
		return false, err
	}
	n, err := parent.Lookup(path.Base(d.path))
	defer n.Forget()
	if n != nil && err == nil {
		in, errIn := n.Lookup(anyName)
		in.Forget()
		err = errIn
	}
	return err == unix.EPERM, nil
}

// anyName is looked up in a directory to have its redirect followed.
const anyName = "x"

// makeOpaque returns the repair of a directory whose redirect is invalid. Opaque, it shows what the
// layer itself has, and the redirect does not count; so it does not matter if the second call
// fails.
func (w *layerWalk) makeOpaque(o *object) *Repair {
	ns := o.marks[ondisk.Redirect]
	name := o.name
	return w.repair(o, "make the directory opaque, so that what it has itself shows, and remove "+ns.Name(ondisk.Redirect),
		func(in *sys.Dir, r sys.Ref) error {
			d, err := in.OpenDir(name)
			if err != nil {
				return err
			}
			defer d.Close()
			if err := (whiteout.Format{Xattrs: ns}).MakeOpaque(d); err != nil {
				return err
			}
			return r.RemoveXattr(ns.Name(ondisk.Redirect))
		})
}
