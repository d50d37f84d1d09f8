package owner

import (
	"encoding/binary"
	"slices"

	"github.com/fuse-overlay/fuse-overlay/internal/ondisk"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// Layout of an ACL (include/uapi/linux/posix_acl_xattr.h): a version word, then entries of tag,
// permissions and id, 2, 2 and 4 bytes, little endian. Only named users and groups have an id.
const (
	aclHeader = 4
	aclEntry  = 8
	aclUser   = 0x02
	aclGroup  = 0x08
)

// Layout of file capabilities (struct vfs_ns_cap_data of include/uapi/linux/capability.h): revision
// and flags, two pairs of words, and from revision 3 on the user id of the root that they are for.
const (
	capRevisionMask = 0xff000000
	capRevision2    = 0x02000000
	capRevision3    = 0x03000000
	capRootID       = 20
	capSize3        = 24
)

// translate returns the value of an attribute with its ids passed through f; the value itself if it
// holds none. A value of unknown layout is not changed: the kernel checks it.
func translate(name string, value []byte, f func(c class, id uint32) uint32) []byte {
	switch name {
	case ondisk.AccessACL, ondisk.DefaultACL:
		return translateACL(value, f)
	case ondisk.Capability:
		return translateCapability(value, f)
	}
	return value
}

func translateACL(value []byte, f func(c class, id uint32) uint32) []byte {
	if len(value) < aclHeader {
		return value
	}
	value = slices.Clone(value)
	for at := aclHeader; at+aclEntry <= len(value); at += aclEntry {
		id := value[at+4:]
		switch binary.LittleEndian.Uint16(value[at:]) {
		case aclUser:
			putID(id, f(users, binary.LittleEndian.Uint32(id)))
		case aclGroup:
			putID(id, f(groups, binary.LittleEndian.Uint32(id)))
		}
	}
	return value
}

func putID(to []byte, id uint32) {
	if id != sys.Unchanged {
		binary.LittleEndian.PutUint32(to, id)
	}
}

// translateCapability passes the root's id through f. Capabilities for the root of the first user
// namespace are written as revision 2, which has no such id.
func translateCapability(value []byte, f func(c class, id uint32) uint32) []byte {
	if len(value) != capSize3 {
		return value
	}
	revision := binary.LittleEndian.Uint32(value)
	if revision&capRevisionMask != capRevision3 {
		return value
	}
	value = slices.Clone(value)
	putID(value[capRootID:], f(users, binary.LittleEndian.Uint32(value[capRootID:])))
	if binary.LittleEndian.Uint32(value[capRootID:]) == 0 {
		binary.LittleEndian.PutUint32(value, revision&^capRevisionMask|capRevision2)
		return value[:capRootID]
	}
	return value
}
