package ondisk

import (
	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// The attribute overlay.uuid of an upper's root holds the UUID that the kernel's overlayfs reports
// as that of the mount's file system (ovl_init_uuid_xattr).

// SetUUID writes the UUID of the upper whose root is d, unless the upper has one. EINVAL: the upper
// has an invalid one. EOPNOTSUPP: the upper has no extended attributes.
func (ns Namespace) SetUUID(d *sys.Dir, uuid [16]byte) error {
	if has, err := ns.HasUUID(d); has || err != nil {
		return err
	}
	return d.Ref().SetXattr(ns.Name(UUID), uuid[:], 0)
}

// SetUUIDOfNew is [Namespace.SetUUID] for an upper that may be new. It does nothing if a mount has
// used the upper without a UUID: that has made the root impure.
func (ns Namespace) SetUUIDOfNew(d *sys.Dir, uuid [16]byte) error {
	if has, err := ns.HasUUID(d); has || err != nil {
		return err
	}
	if _, err := d.Ref().GetXattr(ns.Name(Impure)); err != unix.ENODATA {
		return err
	}
	return d.Ref().SetXattr(ns.Name(UUID), uuid[:], 0)
}

// HasUUID reports whether the upper whose root is d has a UUID. EINVAL: it has an invalid one.
// EOPNOTSUPP: the upper has no extended attributes.
func (ns Namespace) HasUUID(d *sys.Dir) (bool, error) {
	if ns == NoXattrs {
		return false, unix.EOPNOTSUPP
	}
	switch uuid, err := d.Ref().GetXattr(ns.Name(UUID)); {
	case err == unix.ENODATA:
		return false, nil
	case err != nil:
		return false, err
	case len(uuid) != 16:
		return false, unix.EINVAL
	}
	return true, nil
}
