package ondisk

import (
	"strings"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// MaxRedirect is how long a redirect may be that is written, as in the kernel (module parameter redirect_max).
const MaxRedirect = 256

// ValidRedirect reports whether a redirect that was read leads somewhere: names between single slashes, or one name
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

// SetRedirect says where the layers below have the directory d. EOPNOTSUPP where the upper has no attributes.
func (ns Namespace) SetRedirect(d sys.Ref, redirect string) error {
	if ns == NoXattrs {
		return unix.EOPNOTSUPP
	}
	return d.SetXattr(ns.Name(Redirect), []byte(redirect), 0)
}
