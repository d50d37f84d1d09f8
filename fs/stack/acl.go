package stack

import (
	"encoding/binary"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/ondisk"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// Extended attributes of POSIX ACLs, and the layout of their values
// (include/uapi/linux/posix_acl_xattr.h): a version word, then entries of tag, permissions and id,
// 2+2+4 bytes, little endian.
const (
	accessACL  = ondisk.AccessACL
	defaultACL = ondisk.DefaultACL

	aclHeader   = 4
	aclEntry    = 8
	aclUserObj  = 0x01
	aclGroupObj = 0x04
	aclMask     = 0x10
	aclOther    = 0x20
)

// inheriting is an object with what it inherits from its directory.
type inheriting struct {
	Object
	// staged: it is made in the work directory. Otherwise, if it belongs to the ids of the daemon, the
	// file system makes it inherit by itself.
	staged      bool
	inheritsGID bool
}

// inherit applies what a new entry inherits from its directory: the group and the bit itself of a
// setgid directory (inode_init_owner), and a default ACL in place of the umask (posix_acl_create).
func (s *Stack) inherit(d *Dir, up *sys.Dir, o *inheriting) error {
	if s.acl && !d.defaultACLKnown {
		acl, err := up.Ref().GetXattr(defaultACL)
		if err != nil && err != unix.ENODATA && err != unix.EOPNOTSUPP {
			return err
		}
		d.defaultACL, d.defaultACLKnown = acl, true
	}
	if len(d.defaultACL) == 0 {
		o.Mode &^= o.Umask & 0o777
	}
	if uid, gid := s.stored(&o.Object); !o.staged && uid == s.uid && gid == s.gid {
		return nil
	}
	var st sys.Stat
	if err := s.Shown(Upper, up.Ref()).Stat(&st); err != nil {
		return err
	}
	if st.Mode&unix.S_ISGID != 0 {
		o.GID, o.inheritsGID = st.Gid, true
		if o.Mode&unix.S_IFMT == unix.S_IFDIR {
			o.Mode |= unix.S_ISGID
		}
	}
	return nil
}

// applyDefaultACL does for a staged object what the file system does for one made in place
// (posix_acl_create_masq): the default ACL becomes the access ACL, cut down to the mode of the
// request, and a directory gets it as its default.
func applyDefaultACL(r sys.Ref, acl []byte, mode uint32) error {
	if len(acl) < aclHeader {
		return nil
	}
	access := append([]byte(nil), acl...)
	groupAt := -1
	for at := aclHeader; at+aclEntry <= len(access); at += aclEntry {
		perm := access[at+2:]
		switch binary.LittleEndian.Uint16(access[at:]) {
		case aclUserObj:
			limitACL(perm, mode>>6)
		case aclOther:
			limitACL(perm, mode)
		case aclGroupObj:
			if groupAt < 0 {
				groupAt = at
			}
		case aclMask:
			groupAt = at
		}
	}
	if groupAt >= 0 {
		limitACL(access[groupAt+2:], mode>>3)
	}
	if err := r.SetXattr(accessACL, access, 0); err != nil {
		return err
	}
	if mode&unix.S_IFMT != unix.S_IFDIR {
		return nil
	}
	return r.SetXattr(defaultACL, acl, 0)
}

func limitACL(perm []byte, bits uint32) {
	binary.LittleEndian.PutUint16(perm, binary.LittleEndian.Uint16(perm)&uint16(bits&7))
}
