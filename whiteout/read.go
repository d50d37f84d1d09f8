package whiteout

import (
	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/ondisk"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// Values of the attribute overlay.opaque.
const (
	opaqueYes       = "y" // the directory is opaque
	opaqueWhiteouts = "x" // the directory may hold whiteouts of the xattr form (Linux 6.8)
)

// DirXattrs holds the overlay's attributes of a layer's directory, and whether it has the
// [OpaqueMarker].
type DirXattrs struct {
	// Opaque: nothing of the layers below shows in the directory.
	Opaque bool
	// XattrWhiteouts: an empty regular file in the directory may be a whiteout; see
	// [IsXattrWhiteout].
	XattrWhiteouts bool
	ondisk.DirXattrs
}

// ReadDir reads the attributes of a directory and looks for the [OpaqueMarker] in it. If the
// directory has no extended attributes, it makes two calls.
func ReadDir(names ondisk.Names, d *sys.Dir) (DirXattrs, error) {
	x, err := ReadDirXattrs(names, d)
	if err != nil || x.Opaque {
		return x, err
	}
	var st sys.Stat
	switch err := d.At(OpaqueMarker).Stat(&st); err {
	case nil:
		x.Opaque = true
	case unix.ENOENT:
	default:
		return DirXattrs{}, err
	}
	return x, nil
}

// ReadDirXattrs is [ReadDir] without the look for the [OpaqueMarker], for callers that list the
// directory. If the directory has no extended attributes, it makes one call.
func ReadDirXattrs(names ondisk.Names, d *sys.Dir) (DirXattrs, error) {
	r := d.Ref()
	onDisk, err := r.ListXattr()
	if err != nil {
		return DirXattrs{}, err
	}
	var x DirXattrs
	for _, name := range onDisk {
		ns, attr, ok := names.Parse(name)
		if !ok {
			continue
		}
		if attr == ondisk.Opaque {
			err = x.readOpaque(r, ns)
		} else {
			err = x.Read(r, ns, attr)
		}
		if err != nil && err != unix.ENODATA { // ENODATA: removed meanwhile
			return DirXattrs{}, err
		}
	}
	return x, nil
}

func (x *DirXattrs) readOpaque(r sys.Ref, ns ondisk.Namespace) error {
	value, err := r.GetXattr(ns.Name(ondisk.Opaque))
	if err != nil {
		return err
	}
	switch {
	case string(value) == opaqueYes:
		x.Opaque = true
	case string(value) == opaqueWhiteouts && ns != ondisk.Fuseoverlayfs:
		x.XattrWhiteouts = true
	}
	return nil
}

// MayBe reports whether an entry with this type in a listing (DT_*) can be an in-place whiteout.
// xattrWhiteouts is that of the directory's [DirXattrs].
func MayBe(typ uint8, xattrWhiteouts bool) bool {
	return typ == unix.DT_CHR || typ == unix.DT_UNKNOWN || typ == unix.DT_REG && xattrWhiteouts
}

// Is reports whether the object r, with the attributes st, is an in-place whiteout. xattrWhiteouts
// is that of the directory's [DirXattrs].
func Is(names ondisk.Names, r sys.Ref, st *sys.Stat, xattrWhiteouts bool) (bool, error) {
	if IsDevice(st) || !xattrWhiteouts {
		return IsDevice(st), nil
	}
	return IsXattrWhiteout(names, r, st)
}

// IsXattrWhiteout reports whether the object r, with the attributes st, is a whiteout of the xattr
// form: an empty regular file with overlay.whiteout, whatever its value
// (ovl_path_check_xwhiteout_xattr in fs/overlayfs/util.c). Precondition: its directory has
// [DirXattrs].XattrWhiteouts.
func IsXattrWhiteout(names ondisk.Names, r sys.Ref, st *sys.Stat) (bool, error) {
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Size != 0 {
		return false, nil
	}
	onDisk, err := r.ListXattr()
	if err != nil {
		return false, err
	}
	for _, name := range onDisk {
		if _, attr, ok := names.Parse(name); ok && attr == ondisk.Whiteout {
			return true, nil
		}
	}
	return false, nil
}
