package ondisk

import (
	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// The attribute overlay.origin of an object of the upper holds the handle of the lower's object of
// which it is a copy.

// Origin returns the handle of the object of which the upper's object r is a copy. ok is false if
// it is not known.
func (ns Namespace) Origin(r sys.Ref) (h Handle, ok bool, err error) {
	if ns == NoXattrs {
		return Handle{}, false, nil
	}
	value, err := r.GetXattr(ns.Name(Origin))
	switch err {
	case nil:
		h, ok = ParseHandle(value)
		return h, ok, nil
	// EACCES: user.* of a file that its owner may not read.
	case unix.ENODATA, unix.EOPNOTSUPP, unix.EPERM, unix.EACCES, unix.ENOENT:
		return Handle{}, false, nil
	}
	return Handle{}, false, err
}

// IsCopy reports whether the upper's object r has the attributes of a copy: an origin, or that of a
// file without data. The copy of one of several linked files has no origin.
func (ns Namespace) IsCopy(r sys.Ref) (bool, error) {
	if ns == NoXattrs {
		return false, nil
	}
	for _, x := range []Attr{Origin, Metacopy} {
		switch _, err := r.GetXattr(ns.Name(x)); err {
		case nil:
			return true, nil
		case unix.ENODATA, unix.EOPNOTSUPP, unix.EPERM, unix.EACCES, unix.ENOENT: // see Origin
		default:
			return false, err
		}
	}
	return false, nil
}

// SetOrigin replaces the origin of the upper's object r. ENODATA: it has none.
func (ns Namespace) SetOrigin(r sys.Ref, h Handle) error {
	return r.SetXattr(ns.Name(Origin), h.Encode(), unix.XATTR_REPLACE)
}

// SetImpure notes that objects in the upper's directory d may have an origin: in other directories
// none is looked for (ovl_set_impure). If the directory cannot have the attribute, SetImpure
// returns nil: then the objects only get other inode numbers at the next mount.
func (ns Namespace) SetImpure(d *sys.Dir) error {
	if ns == NoXattrs {
		return nil
	}
	switch err := d.Ref().SetXattr(ns.Name(Impure), []byte("y"), 0); err {
	case unix.EOPNOTSUPP, unix.EPERM, unix.EACCES:
		return nil
	default:
		return err
	}
}

// With index=on two directories hold the handle of another: the root of the upper that of the first
// lower's root, in overlay.origin, and the index that of the upper's root, in overlay.upper.

// VerifyHandle returns nil if the directory r holds this handle (ovl_verify_set_fh). ESTALE: it
// holds another handle. ENODATA: it holds none.
func (ns Namespace) VerifyHandle(r sys.Ref, h Handle) error {
	value, err := r.GetXattr(ns.handleXattr(h))
	if err != nil {
		return err
	}
	if string(value) == string(h.Encode()) {
		return nil
	}
	if _, ok := ParseHandle(value); !ok {
		return unix.ENODATA
	}
	return unix.ESTALE
}

// SetHandle writes the handle that [Namespace.VerifyHandle] compares.
func (ns Namespace) SetHandle(r sys.Ref, h Handle) error {
	return r.SetXattr(ns.handleXattr(h), h.Encode(), 0)
}

func (ns Namespace) handleXattr(h Handle) string {
	if h.Upper {
		return ns.Name(Upper)
	}
	return ns.Name(Origin)
}
