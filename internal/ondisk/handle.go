package ondisk

import (
	"encoding/binary"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// The attribute overlay.origin says which object of a lower one of the upper is a copy of, by a file handle; those of the root
// of the upper and of the directory of the index say which directories these belong to.
// Handle is a file handle as the kernel's overlayfs keeps it on disk (struct ovl_fb of fs/overlayfs/overlayfs.h).
type Handle struct {
	sys.Handle
	// UUID is the number of the file system that the handle is of; all zero with option uuid=off.
	UUID [16]byte
	// Upper: the object lies in the upper.
	Upper bool
}

// The layout of struct ovl_fb: version, magic, length of all, flags, form of the handle, number of the file system, handle.
const (
	handleVersion = 0
	handleMagic   = 0xfb
	handleUUIDAt  = 5
	handleSize    = 21

	handleBigEndian = 1 << 0
	handleAnyEndian = 1 << 1
	handleUpper     = 1 << 2
	handleFlags     = handleBigEndian | handleAnyEndian | handleUpper
)

// cpuEndian is the flag of handles made on this machine: their bytes are in its order (OVL_FH_FLAG_CPU_ENDIAN).
var cpuEndian = func() byte {
	if binary.NativeEndian.Uint16([]byte{0, 1}) == 1 {
		return handleBigEndian
	}
	return 0
}()

// Encode gives the value of the attribute; nil where the handle cannot be kept.
func (h Handle) Encode() []byte {
	size := handleSize + len(h.ID)
	if size > 0xff || h.Type < 0 || h.Type >= 0xff { // 0xff is FILEID_INVALID
		return nil
	}
	flags := cpuEndian
	if h.Upper {
		flags |= handleUpper
	}
	value := append(make([]byte, 0, size), handleVersion, handleMagic, byte(size), flags, byte(h.Type))
	return append(append(value, h.UUID[:]...), h.ID...)
}

// ParseHandle reads the value of the attribute. ok is false for what says nothing: an empty one, which stands for a copy of
// something that has no handle, one of a later version or of a machine with the other order of bytes, and what makes no
// sense (ovl_check_fb_len).
func ParseHandle(value []byte) (h Handle, ok bool) {
	if len(value) < handleSize || value[0] > handleVersion || value[1] != handleMagic {
		return Handle{}, false
	}
	size, flags := int(value[2]), value[3]
	if size < handleSize || size > len(value) || flags&^handleFlags != 0 {
		return Handle{}, false
	}
	if flags&handleAnyEndian == 0 && flags&handleBigEndian != cpuEndian {
		return Handle{}, false
	}
	h.Type, h.ID, h.Upper = int32(value[4]), string(value[handleSize:size]), flags&handleUpper != 0
	copy(h.UUID[:], value[handleUUIDAt:])
	return h, true
}

// Origin reads what the upper's object r is a copy of. ok is false where that is not known.
func (ns Namespace) Origin(r sys.Ref) (h Handle, ok bool, err error) {
	if ns == NoXattrs {
		return Handle{}, false, nil
	}
	value, err := r.GetXattr(ns.Name(Origin))
	switch err {
	case nil:
		h, ok = ParseHandle(value)
		return h, ok, nil
	// EACCES: attributes user.* of a file that its owner may not read.
	case unix.ENODATA, unix.EOPNOTSUPP, unix.EPERM, unix.EACCES, unix.ENOENT:
		return Handle{}, false, nil
	}
	return Handle{}, false, err
}

// SetOrigin replaces the origin of the upper's object r, which has one already.
func (ns Namespace) SetOrigin(r sys.Ref, h Handle) error {
	return r.SetXattr(ns.Name(Origin), h.Encode(), unix.XATTR_REPLACE)
}

// SetImpure says of the upper's directory d that objects in it have an origin, so that it is looked for there alone
// (ovl_set_impure). Where it cannot be said nothing is worse than that they get other inode numbers at the next mount.
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

// SetUUID gives the upper whose root is d the number that the kernel's overlayfs shows as that of the file system, unless it
// has one. Without always only a new upper gets one: others have been mounted without (ovl_init_uuid_xattr).
func (ns Namespace) SetUUID(d *sys.Dir, uuid [16]byte, always bool) error {
	if ns == NoXattrs {
		return unix.EOPNOTSUPP
	}
	name := ns.Name(UUID)
	if old, err := d.Ref().GetXattr(name); err != unix.ENODATA {
		if err == nil && len(old) != len(uuid) {
			err = unix.EINVAL
		}
		return err
	}
	if !always {
		if _, err := d.Ref().GetXattr(ns.Name(Impure)); err != unix.ENODATA {
			return err
		}
	}
	return d.Ref().SetXattr(name, uuid[:], 0)
}
