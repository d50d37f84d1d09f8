package whiteout

import (
	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// The device form of a whiteout, to be made with mknod: character device 0/0 without permissions, which needs no
// privilege since Linux 5.8.
const (
	DeviceMode uint32 = unix.S_IFCHR
	DeviceRdev uint64 = 0
)

const (
	trustedOpaque = trustedOverlay + "opaque"
	userOpaque    = userOverlay + "opaque"
	ownOpaque     = "user.fuseoverlayfs.opaque"

	opaqueYes       = "y" // the directory hides what lies below it
	opaqueWhiteouts = "x" // the directory may hold whiteouts in extended attribute form (Linux 6.8)

	trustedRedirect = trustedOverlay + "redirect"
	userRedirect    = userOverlay + "redirect"

	trustedImpure = trustedOverlay + "impure"
	userImpure    = userOverlay + "impure"

	trustedWhiteout = trustedOverlay + "whiteout"
	userWhiteout    = userOverlay + "whiteout"
)

// Marks is what a layer's directory says of the layers below it and of its own entries.
type Marks struct {
	// Opaque: nothing of the layers below shows in this directory.
	Opaque bool
	// XattrWhiteouts: an empty regular file in this directory may be a whiteout; ask [Names.IsXattrWhiteout].
	XattrWhiteouts bool
	// Redirect is where the layers below have the directory that this one merges with: a path below their roots where it
	// begins with a slash, else a name in the same directory. Empty: under its own name. Not checked yet, see
	// [ValidRedirect].
	Redirect string
	// ByUser: the redirect is an attribute of namespace user., which the owner of the directory may write.
	ByUser bool
	// Impure: entries may have attributes of the overlay's own, for they came from a lower (ovl_set_impure).
	Impure bool
}

// ReadMarks reads every form of mark on the opened directory d. A directory without extended attributes costs one
// call, or two when lookForMarker asks to look for the [OpaqueMarker] file: a caller that has listed the directory
// already knows whether it is there.
func (n Names) ReadMarks(d *sys.Dir, lookForMarker bool) (Marks, error) {
	var m Marks
	names, err := d.Ref().ListXattr()
	if err != nil {
		return Marks{}, err
	}
	for _, name := range names {
		if !n.mean(name) {
			continue
		}
		switch name {
		case trustedOpaque, userOpaque, ownOpaque, trustedRedirect, userRedirect:
		case trustedImpure, userImpure: // whatever the value
			m.Impure = true
			continue
		default:
			continue
		}
		value, err := d.Ref().GetXattr(name)
		if err == unix.ENODATA { // removed meanwhile
			continue
		}
		if err != nil {
			return Marks{}, err
		}
		switch {
		case name == trustedRedirect:
			m.Redirect, m.ByUser = string(value), false
		case name == userRedirect:
			if m.Redirect == "" {
				m.Redirect, m.ByUser = string(value), true
			}
		case string(value) == opaqueYes:
			m.Opaque = true
		case string(value) == opaqueWhiteouts && name != ownOpaque:
			m.XattrWhiteouts = true
		}
	}
	if lookForMarker && !m.Opaque {
		var st sys.Stat
		switch err := d.At(OpaqueMarker).Stat(&st); err {
		case nil:
			m.Opaque = true
		case unix.ENOENT:
		default:
			return Marks{}, err
		}
	}
	return m, nil
}

// IsXattrWhiteout reports whether the object r with the given attributes is a whiteout in extended attribute form: an
// empty regular file with the attribute overlay.whiteout, whatever its value (fs/overlayfs/util.c,
// ovl_path_check_xwhiteout_xattr). It means so only in a directory with [Marks].XattrWhiteouts.
func (n Names) IsXattrWhiteout(r sys.Ref, st *sys.Stat) (bool, error) {
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Size != 0 {
		return false, nil
	}
	names, err := r.ListXattr()
	if err != nil {
		return false, err
	}
	for _, name := range names {
		if n.mean(name) && (name == trustedWhiteout || name == userWhiteout) {
			return true, nil
		}
	}
	return false, nil
}
