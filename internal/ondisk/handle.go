package ondisk

import (
	"encoding/binary"

	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// Handle is a file handle in the encoding of the kernel's overlayfs (struct ovl_fb of
// fs/overlayfs/overlayfs.h).
type Handle struct {
	sys.Handle
	// UUID is that of the file system of the object; all zero with option uuid=off.
	UUID [16]byte
	// Upper: the object is one of the upper, not of a lower.
	Upper bool
}

// The layout of struct ovl_fb: version, magic, length of the whole, flags, type of the handle,
// UUID, handle.
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

// cpuEndian is the flag of handles that this machine makes: they are in its byte order
// (OVL_FH_FLAG_CPU_ENDIAN).
var cpuEndian = func() byte {
	if binary.NativeEndian.Uint16([]byte{0, 1}) == 1 {
		return handleBigEndian
	}
	return 0
}()

// Encode returns the value of an attribute that holds the handle; nil if the handle does not fit.
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

// ParseHandle reads the value of an attribute. ok is false for a value without a handle: an empty
// one, of a copy whose source has no handle; one of a later version, or of a machine with the other
// byte order; and an invalid one (ovl_check_fb_len).
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
