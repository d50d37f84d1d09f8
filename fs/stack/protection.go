package stack

import (
	"github.com/fuse-overlay/fuse-overlay/copyup"
	"github.com/fuse-overlay/fuse-overlay/internal/ondisk"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// Protection returns [sys.FlagImmutable] and [sys.FlagAppend] of an object of a layer: the flags of
// its inode, which were set outside of the mount, and in the upper those of the protattr xattr
// (ovl_check_protattr).
func (s *Stack) Protection(layer int, r sys.Ref) (flags uint32, err error) {
	flags, err = r.Protection()
	if err != nil || layer != Upper {
		return flags, err
	}
	kept, err := s.xattrs.Protattr(r)
	return flags | kept, err
}

// SetProtection sets the flags of an object of the upper in its protattr xattr. It returns EPERM if
// the upper has no xattrs.
func (s *Stack) SetProtection(r sys.Ref, flags uint32) error {
	return s.xattrs.SetProtattr(r, flags)
}

// protattr is the protattr xattr for the copy of an object with flags.
func (s *Stack) protattr(flags uint32) (x copyup.Xattr, ok bool) {
	if s.xattrs == ondisk.NoXattrs {
		return copyup.Xattr{}, false
	}
	return copyup.Xattr{Name: s.xattrs.Name(ondisk.Protattr), Value: ondisk.EncodeProtattr(flags)}, true
}
