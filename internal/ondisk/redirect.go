package ondisk

import (
	"strings"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// MaxRedirect is the length of the longest redirect that is written, in bytes (module parameter
// redirect_max of the kernel's overlayfs).
const MaxRedirect = 256

// ValidRedirect reports whether a redirect consists of names between single slashes, or of one name
// (ovl_get_redirect_xattr).
func ValidRedirect(redirect string) bool {
	path, absolute := strings.CutPrefix(redirect, "/")
	if !absolute && strings.Contains(path, "/") {
		return false
	}
	for name := range strings.SplitSeq(path, "/") {
		if name == "" || name == "." || name == ".." {
			return false
		}
	}
	return true
}

// SetRedirect writes where the layers below have the directory d, or the data of the file d.
// EOPNOTSUPP: the upper has no extended attributes.
func (ns Namespace) SetRedirect(d sys.Ref, redirect string) error {
	if ns == NoXattrs {
		return unix.EOPNOTSUPP
	}
	return d.SetXattr(ns.Name(Redirect), []byte(redirect), 0)
}
