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
	kept, err := s.format.Xattrs.Protection(r)
	return flags | kept, err
}

// SetProtection sets the flags of an object of the upper in its protattr xattr. It returns EPERM if
// the upper has no xattrs.
func (s *Stack) SetProtection(r sys.Ref, flags uint32) error {
	return s.format.Xattrs.SetProtection(r, flags)
}

// protectionMark is the protattr xattr for the copy of an object with flags.
func (s *Stack) protectionMark(flags uint32) (mark copyup.Mark, ok bool) {
	if s.format.Xattrs == ondisk.NoXattrs {
		return copyup.Mark{}, false
	}
	return copyup.Mark{Name: s.format.Xattrs.Name(ondisk.Protattr), Value: ondisk.EncodeProtection(flags)}, true
}
