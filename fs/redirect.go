package fs

import (
	"cmp"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/fs/stack"
	"github.com/fuse-overlay/fuse-overlay/internal/ondisk"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// The data of a file of the upper that has attributes alone is found by its name, or by a redirect. Both are settled here when
// the file gets another name or a further one.

// redirectData settles what a file without data is to say of where that is, after the rename (ovl_set_redirect).
// Precondition: the ends are locked.
func (r *rename) redirectData(end *stack.End, at placed, n *Node) (err error) {
	data := n.place().data
	if data == nil {
		return nil
	}
	beside := r.from.parent == r.to.parent && !data.Linked
	switch {
	case data.Redirect != "" && (beside || data.Redirect[0] == '/'):
	case beside:
		end.Redirect = at.name
	default:
		end.Redirect, err = at.pathOfData(data)
	}
	return err
}

// pathOfData is where the layers below the upper have the data of a file, from their roots; EXDEV where that is too long to be
// kept.
func (at placed) pathOfData(data *stack.Data) (string, error) {
	where := strings.TrimSuffix(at.parent.pathBelow(), "/") + "/" + cmp.Or(data.Redirect, at.name)
	if len(where) > ondisk.MaxRedirect {
		return "", unix.EXDEV
	}
	return where, nil
}

// hasShortName reports whether a redirect could lead to the data of a shared file by one of its names: the kernel's overlayfs, but
// no FUSE server, knows which name a link is made from. Precondition: none of n's locks is held.
func (o *Overlay) hasShortName(n *Node) bool {
	p := n.place()
	if p.shared == nil || p.data == nil {
		return false
	}
	n.mu.Lock()
	names := slices.Clone(n.rareLocked().others)
	n.mu.Unlock()
	return slices.ContainsFunc(names, func(at placed) bool {
		_, err := at.pathOfData(p.data)
		return err == nil
	})
}

// leadFromAnywhere gives a file without data, which lies at, a redirect that is good under any name that it gets
// (ovl_set_link_redirect). Precondition: the mu of its directory is held.
func (o *Overlay) leadFromAnywhere(n *Node, at *place, r sys.Ref) error {
	if at.data == nil || strings.HasPrefix(at.data.Redirect, "/") {
		return nil
	}
	redirect, err := at.pathOfData(at.data)
	if err == nil {
		err = o.stack.SetRedirect(r, redirect)
	}
	if err == nil {
		n.redirected(redirect)
	}
	return err
}

// redirected notes the redirect that a file without data has got.
func (n *Node) redirected(redirect string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if data := n.rareLocked().data; data != nil {
		n.setDataLocked(data.Redirected(redirect))
	}
}

// origins notes which ends of a rename have an origin. A directory has one if it has a lower part.
// Precondition: the ends are locked.
func (r *rename) origins(from, to *stack.End, src, dst *Node) {
	from.HasOrigin = r.o.hasOrigin(src)
	if r.exchange() {
		to.HasOrigin = r.o.hasOrigin(dst)
	}
}

// redirect settles what a directory with a lower part is to say of it after the rename (ovl_set_redirect). Precondition:
// the ends are locked.
func (r *rename) redirect(end *stack.End, at placed, n *Node) error {
	if n.dir == nil {
		return r.redirectData(end, at, n)
	}
	n.dir.mu.Lock()
	defer n.dir.mu.Unlock()
	if !r.o.stack.Loaded(&n.dir.Dir, stack.ToChange) {
		return errAside
	}
	if !n.dir.HasLower() {
		return nil
	}
	var err error
	end.Merged = true
	end.Redirect, err = r.redirectFor(at, n)
	return err
}

// redirectFor is the redirect that a directory with a lower part needs for the rename; empty where it has one that will do.
// EXDEV where none is written, or it is too long to be kept. Preconditions: n.dir.mu is held, n is loaded.
func (r *rename) redirectFor(at placed, n *Node) (redirect string, err error) {
	if !r.o.stack.WritesRedirects() {
		return "", unix.EXDEV
	}
	beside, has := r.from.parent == r.to.parent, n.dir.Redirect()
	switch {
	case has != "" && (beside || has[0] == '/'):
		return "", nil
	case beside:
		redirect = at.name
	default:
		redirect = n.pathBelow()
	}
	if len(redirect) > ondisk.MaxRedirect {
		return "", unix.EXDEV
	}
	return redirect, nil
}

// renamed notes where the lower parts of a directory, or the data of a file, lie that gets another name. Precondition: the ends are
// locked.
func renamed(end *stack.End, n *Node) {
	switch {
	case end.Merged:
		n.dir.mu.Lock()
		defer n.dir.mu.Unlock()
		places := n.dir.PlacesOf(end.Redirect, n.pathIn)
		n.mu.Lock()
		defer n.mu.Unlock()
		n.dir.SetPlaces(places)
	case end.Redirect != "":
		n.redirected(end.Redirect)
	}
}
