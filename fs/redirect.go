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

// A redirect leads from a directory of the upper to its parts in the layers below, and from a file
// of the upper without data (metacopy) to its data. Without one the name leads there. A rename or a
// further link decides whether an object needs a redirect.

// redirectDataLocked decides which redirect a file without data needs after the rename
// (ovl_set_redirect). Preconditions: the ends are locked.
func (r *rename) redirectDataLocked(end *stack.End, at placed, n *Node) (err error) {
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

// pathOfData returns the path of the data of a file in the layers below the upper, from their
// roots; EXDEV: it is too long for a redirect.
func (at placed) pathOfData(data *stack.Data) (string, error) {
	where := strings.TrimSuffix(at.parent.pathBelow(), "/") + "/" + cmp.Or(data.Redirect, at.name)
	if len(where) > ondisk.MaxRedirect {
		return "", unix.EXDEV
	}
	return where, nil
}

// hasShortName reports whether a redirect could lead to the data of a shared file by one of its
// names. The kernel's overlayfs knows which name a link is made from, a FUSE server does not.
// Preconditions: none of n's locks is held.
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

// makeRedirectAbsoluteLocked gives a file without data, which lies at, a redirect that is right
// under any name (ovl_set_link_redirect). Preconditions: the mu of its directory is held.
func (o *Overlay) makeRedirectAbsoluteLocked(n *Node, at *place, r sys.Ref) error {
	if at.data == nil || strings.HasPrefix(at.data.Redirect, "/") {
		return nil
	}
	redirect, err := at.pathOfData(at.data)
	if err == nil {
		err = o.stack.SetRedirect(r, redirect)
	}
	if err == nil {
		n.noteRedirect(redirect)
	}
	return err
}

// noteRedirect notes the redirect that a file without data has now.
func (n *Node) noteRedirect(redirect string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if data := n.rareLocked().data; data != nil {
		n.setDataLocked(data.Redirected(redirect))
	}
}

// originsLocked notes which ends of a rename have an origin. A directory has one if it has a lower
// part. Preconditions: the ends are locked.
func (r *rename) originsLocked(from, to *stack.End, src, dst *Node) {
	from.HasOrigin = r.o.numbers.nodeHasOrigin(src)
	if r.exchange() {
		to.HasOrigin = r.o.numbers.nodeHasOrigin(dst)
	}
}

// redirectLocked decides which redirect an object needs after the rename (ovl_set_redirect).
// Preconditions: the ends are locked.
func (r *rename) redirectLocked(end *stack.End, at placed, n *Node) error {
	if n.dir == nil {
		return r.redirectDataLocked(end, at, n)
	}
	n.dir.mu.Lock()
	defer n.dir.mu.Unlock()
	if !r.o.stack.Loaded(&n.dir.Dir, stack.ToChange) {
		return errNeedsLayers
	}
	if !n.dir.HasLower() {
		return nil
	}
	var err error
	end.Merged = true
	end.Redirect, err = r.redirectForLocked(at, n)
	return err
}

// redirectForLocked returns the redirect that a directory with a lower part needs for the rename;
// empty: the one it has will do. EXDEV if the mount writes none, or it is too long. Preconditions:
// n.dir.mu is held, n is loaded.
func (r *rename) redirectForLocked(at placed, n *Node) (redirect string, err error) {
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

// noteRenamedLocked notes where the lower parts of a renamed directory lie, or the data of a
// renamed file. Preconditions: the ends are locked.
func noteRenamedLocked(end *stack.End, n *Node) {
	switch {
	case end.Merged:
		n.dir.mu.Lock()
		defer n.dir.mu.Unlock()
		places := n.dir.PlacesOf(end.Redirect, n.pathIn)
		n.mu.Lock()
		defer n.mu.Unlock()
		n.dir.SetPlaces(places)
	case end.Redirect != "":
		n.noteRedirect(end.Redirect)
	}
}
