package ondisk

import "strings"

const (
	// escape follows the prefix of a private name that a process has set through the mount. So the
	// upper of an inner overlay can lie on an outer one (ovl_xattr_escape_name in
	// fs/overlayfs/xattrs.c).
	escape = "overlay."

	// maxXattrName is XATTR_NAME_MAX, in bytes.
	maxXattrName = 255
)

// privateNames are the prefixes of private names. escaped: the mount stores such a name under an
// escaped one; otherwise it refuses the name. It refuses those for which no program has defined an
// escaped form. Attributes that keep owner and mode (override_stat) are among them: a process that
// could set one would choose the owner of a file at the next mount.
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

// Names is the set of extended attributes that are private: the overlay's own. The zero value has
// those of all namespaces.
type Names struct {
	// UserOnly leaves trusted.overlay.* out: it is content like any other name (option userxattr;
	// ovl_is_own_xattr in fs/overlayfs/xattrs.c).
	UserOnly bool
}

// covers reports whether the set has any name that begins as this one does.
func (n Names) covers(onDisk string) bool {
	return !n.UserOnly || !strings.HasPrefix(onDisk, trustedOverlay)
}

// Has reports whether the overlay's attributes of the namespace are private, and so have a meaning.
func (n Names) Has(ns Namespace) bool { return ns != NoXattrs && n.covers(prefixes[ns]) }

// OfRoot returns the namespace of an upper's attributes for root of the first user namespace, if
// the upper is only read.
func (n Names) OfRoot() Namespace { return n.firstWritten(func(Namespace) bool { return true }) }

// OfUser is [Names.OfRoot] for any other user.
func (n Names) OfUser() Namespace { return n.firstWritten(Namespace.ByOwner) }

func (n Names) firstWritten(can func(Namespace) bool) Namespace {
	for _, ns := range Written {
		if n.Has(ns) && can(ns) {
			return ns
		}
	}
	return NoXattrs
}

// Parse splits the name of an attribute of a layer. ok is false if it is not one of the overlay's
// attributes.
func (n Names) Parse(onDisk string) (ns Namespace, a Attr, ok bool) {
	if !n.covers(onDisk) {
		return NoXattrs, 0, false
	}
	for ns := Trusted; ns < namespaceCount; ns++ {
		rest, ok := strings.CutPrefix(onDisk, prefixes[ns])
		if !ok {
			continue
		}
		for a, name := range attrNames {
			if rest == name {
				return ns, Attr(a), ns != Fuseoverlayfs || Attr(a) == Opaque
			}
		}
		break
	}
	return NoXattrs, 0, false
}

// Unknown reports whether an attribute of a layer has the kernel's prefix of private attributes,
// and is none of those that this program knows.
func (n Names) Unknown(onDisk string) bool {
	for _, ns := range Written {
		if strings.HasPrefix(onDisk, prefixes[ns]) {
			_, _, known := n.Parse(onDisk)
			return n.Private(onDisk) && !known
		}
	}
	return false
}

// Private reports whether an attribute of a layer is the overlay's own: the mount does not show it,
// and a copy-up leaves it out. An escaped name is not private: it is content, of an inner overlay.
func (n Names) Private(onDisk string) bool {
	if !n.covers(onDisk) {
		return false
	}
	for _, p := range privateNames {
		if rest, ok := strings.CutPrefix(onDisk, p.prefix); ok {
			return !(p.escaped && strings.HasPrefix(rest, escape))
		}
	}
	return false
}

// Visible returns the name under which the mount shows an attribute of a layer. ok is false for a
// private attribute. It is the inverse of [Names.Stored].
func (n Names) Visible(onDisk string) (shown string, ok bool) {
	if !n.covers(onDisk) {
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

// Stored returns the name under which a layer stores an attribute that the mount shows. ok is false
// for a name that the mount refuses: the caller replies EOPNOTSUPP to SETXATTR, as the kernel's
// overlayfs does, and ENODATA to the others.
func (n Names) Stored(shown string) (onDisk string, ok bool) {
	if !n.covers(shown) {
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
