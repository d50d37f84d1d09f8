package ondisk

import (
	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// The flags immutable and append-only of an object of the upper are kept in the attribute
// overlay.protattr and not in its inode. An immutable inode could get no attributes of the overlay
// and no further link. An immutable directory could get no copies of the objects in it
// (ovl_set_protattr, ovl_check_protattr).

// maxProtattr is the longest value that the kernel reads, in bytes.
const maxProtattr = 32

// EncodeProtattr returns the value for the flags [sys.FlagImmutable] and [sys.FlagAppend]; nil if
// neither is set.
func EncodeProtattr(flags uint32) []byte {
	var value []byte
	if flags&sys.FlagAppend != 0 {
		value = append(value, 'a')
	}
	if flags&sys.FlagImmutable != 0 {
		value = append(value, 'i')
	}
	return value
}

// ParseProtattr returns the flags that a value sets. Like the kernel it ignores a value with any
// other letter as a whole.
func ParseProtattr(value []byte) (flags uint32) {
	if len(value) > maxProtattr {
		return 0
	}
	for _, letter := range value {
		switch letter {
		case 'a':
			flags |= sys.FlagAppend
		case 'i':
			flags |= sys.FlagImmutable
		default:
			return 0
		}
	}
	return flags
}

// Protattr returns the flags of an object of the upper.
func (ns Namespace) Protattr(r sys.Ref) (flags uint32, err error) {
	if ns == NoXattrs {
		return 0, nil
	}
	value, err := r.GetXattr(ns.Name(Protattr))
	switch err {
	case nil:
		return ParseProtattr(value), nil
	case unix.ENODATA, unix.EOPNOTSUPP, unix.EPERM: // EPERM: user. on an object of a type that cannot have it
		return 0, nil
	}
	return 0, err
}

// SetProtattr writes the flags of an object of the upper, or removes the attribute if flags is 0.
// EPERM: the object cannot have the attribute.
func (ns Namespace) SetProtattr(r sys.Ref, flags uint32) error {
	value := EncodeProtattr(flags)
	switch {
	case ns == NoXattrs && value == nil:
		return nil
	case ns == NoXattrs:
		return unix.EPERM
	case value != nil:
		err := r.SetXattr(ns.Name(Protattr), value, 0)
		if err == unix.EOPNOTSUPP {
			err = unix.EPERM
		}
		return err
	}
	err := r.RemoveXattr(ns.Name(Protattr))
	if err == unix.ENODATA || err == unix.EOPNOTSUPP {
		return nil
	}
	return err
}
