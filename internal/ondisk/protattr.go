package ondisk

import (
	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// The flags immutable and append-only of an object of the upper are kept in the attribute
// overlay.protattr and not in its inode. An immutable inode could get no attributes of the overlay
// and no further link. An immutable directory could get no copies of the objects in it
// (ovl_set_protattr, ovl_check_protattr).

// maxProtection is the longest value that the kernel reads.
const maxProtection = 32

// EncodeProtection gives the value of the attribute for [sys.FlagImmutable] and [sys.FlagAppend]; nil without either.
func EncodeProtection(flags uint32) []byte {
	var value []byte
	if flags&sys.FlagAppend != 0 {
		value = append(value, 'a')
	}
	if flags&sys.FlagImmutable != 0 {
		value = append(value, 'i')
	}
	return value
}

// ParseProtection reads the value of the attribute. Like the kernel it ignores a value with any other letter as a whole.
func ParseProtection(value []byte) (flags uint32) {
	if len(value) > maxProtection {
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

// Protection returns the flags that the attribute of an object of the upper gives.
func (ns Namespace) Protection(r sys.Ref) (flags uint32, err error) {
	if ns == NoXattrs {
		return 0, nil
	}
	value, err := r.GetXattr(ns.Name(Protattr))
	switch err {
	case nil:
		return ParseProtection(value), nil
	case unix.ENODATA, unix.EOPNOTSUPP, unix.EPERM: // EPERM: user. on what is neither file nor directory
		return 0, nil
	}
	return 0, err
}

// SetProtection writes or removes the attribute. EPERM without attributes in the upper.
func (ns Namespace) SetProtection(r sys.Ref, flags uint32) error {
	value := EncodeProtection(flags)
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
