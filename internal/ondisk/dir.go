package ondisk

import (
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// DirXattrs is what a directory of a layer says of the layers below it and of its own entries, but for whiteouts.
type DirXattrs struct {
	// Redirect is where the layers below have the directory that this one merges with: a path below their roots where it
	// begins with a slash, else a name in the same directory. Empty: under its own name. Not checked yet, see
	// [ValidRedirect].
	Redirect string
	// ByUser: the redirect is an attribute of namespace user., which the owner of the directory may write.
	ByUser bool
	// Impure: entries may have attributes of the overlay's own, for they came from a lower (ovl_set_impure).
	Impure bool
}

// Read adds an attribute that the directory r has. It returns ENODATA if the attribute has been removed meanwhile.
func (x *DirXattrs) Read(r sys.Ref, ns Namespace, a Attr) error {
	switch a {
	case Impure: // whatever the value
		x.Impure = true
	case Redirect:
		value, err := r.GetXattr(ns.Name(Redirect))
		if err != nil {
			return err
		}
		// What only root may write goes before what everybody may.
		if !ns.ByOwner() || x.Redirect == "" {
			x.Redirect, x.ByUser = string(value), ns.ByOwner()
		}
	}
	return nil
}
