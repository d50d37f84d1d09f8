package ondisk

import "github.com/fuse-overlay/fuse-overlay/internal/sys"

// DirXattrs holds the overlay's attributes of a layer's directory, except opaque.
type DirXattrs struct {
	// Redirect is where the layers below have the directory with which this one merges: a path from
	// their roots if it begins with a slash, else a name in the same directory. Empty: under its
	// own name. It is not checked; see [ValidRedirect].
	Redirect string
	// ByUser: the owner of the directory may have written Redirect.
	ByUser bool
	// Impure: objects in the directory may have an origin (ovl_set_impure).
	Impure bool
}

// Read adds to x the attribute a, which the directory r has in namespace ns. It ignores attributes
// that DirXattrs does not hold. ENODATA: the attribute has been removed meanwhile.
func (x *DirXattrs) Read(r sys.Ref, ns Namespace, a Attr) error {
	switch a {
	case Impure: // with any value
		x.Impure = true
	case Redirect:
		value, err := r.GetXattr(ns.Name(Redirect))
		if err != nil {
			return err
		}
		// A redirect that only root can have written goes before one of the owner.
		if !ns.ByOwner() || x.Redirect == "" {
			x.Redirect, x.ByUser = string(value), ns.ByOwner()
		}
	}
	return nil
}
