package ondisk

import "strings"

const (
	// escape is what the kernel puts between the prefix and the rest of a private name that the mount was asked to
	// store, so that an overlay may lie inside an overlay (fs/overlayfs/xattrs.c, ovl_xattr_escape_name).
	escape = "overlay."

	// maxXattrName is XATTR_NAME_MAX.
	maxXattrName = 255
)

// The private names. escaped says what the mount does with such a name when it is asked for: store it under an escaped
// name, or refuse it. The latter are those of which no escaped form is known to anybody, and among them are those that carry
// owner and mode of a file (override_stat): who could set them could become anybody at the next mount.
var privateNames = []struct {
	prefix  string
	escaped bool
}{
	{trustedOverlay, true},
	{userOverlay, true},
	{userFuseoverlayfs, false},
	{securityFuseoverlayfs, false},
	{OverrideContainersPrefix, false},
}

// Names says which extended attributes are the overlay's own. The zero value: those of all namespaces.
type Names struct {
	// UserOnly: trusted.overlay.* is not, and is content like any other (option userxattr; fs/overlayfs/xattrs.c,
	// ovl_is_own_xattr).
	UserOnly bool
}

// mean reports whether an attribute of a layer may be a mark.
func (n Names) mean(onDisk string) bool {
	return !n.UserOnly || !strings.HasPrefix(onDisk, trustedOverlay)
}

// Own reports whether attributes of the namespace are the overlay's own.
func (n Names) Own(ns Namespace) bool { return ns != NoXattrs && n.mean(prefixes[ns]) }

// Reading is the namespace in which an upper that is only read has its attributes. trusted: the daemon may read attributes of
// namespace trusted.
func (n Names) Reading(trusted bool) Namespace {
	if trusted && n.Own(Trusted) {
		return Trusted
	}
	return User
}

// Parse splits the name of an extended attribute of a layer that is one of the overlay's own. ok is false for any other.
func (n Names) Parse(onDisk string) (ns Namespace, a Attr, ok bool) {
	if !n.mean(onDisk) {
		return NoXattrs, "", false
	}
	for ns := Trusted; ns <= Fuseoverlayfs; ns++ {
		if rest, ok := strings.CutPrefix(onDisk, prefixes[ns]); ok {
			return ns, Attr(rest), ns != Fuseoverlayfs || Attr(rest) == Opaque
		}
	}
	return NoXattrs, "", false
}

// Private reports whether the extended attribute of a layer is the overlay's own and never shown or copied up. An
// escaped name is not: it is the content of another overlay.
func (n Names) Private(onDisk string) bool {
	if !n.mean(onDisk) {
		return false
	}
	for _, p := range privateNames {
		if rest, ok := strings.CutPrefix(onDisk, p.prefix); ok {
			return !(p.escaped && strings.HasPrefix(rest, escape))
		}
	}
	return false
}

// Visible returns the name under which the extended attribute of a layer is shown through the mount; ok is false
// for a private one. It undoes [Names.Stored].
func (n Names) Visible(onDisk string) (shown string, ok bool) {
	if !n.mean(onDisk) {
		return onDisk, true
	}
	for _, p := range privateNames {
		rest, found := strings.CutPrefix(onDisk, p.prefix)
		if !found {
			continue
		}
		rest, found = strings.CutPrefix(rest, escape)
		if !found || !p.escaped {
			return "", false
		}
		return p.prefix + rest, true
	}
	return onDisk, true
}

// Stored returns the name under which a layer keeps what the mount shows as shown; ok is false for a name that the
// mount does not take: EOPNOTSUPP to who sets it, as the kernel's overlayfs says, ENODATA to who asks.
func (n Names) Stored(shown string) (onDisk string, ok bool) {
	if !n.mean(shown) {
		return shown, true
	}
	for _, p := range privateNames {
		rest, found := strings.CutPrefix(shown, p.prefix)
		if !found {
			continue
		}
		onDisk = p.prefix + escape + rest
		if !p.escaped || len(onDisk) > maxXattrName {
			return "", false
		}
		return onDisk, true
	}
	return shown, true
}
