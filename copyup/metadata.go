package copyup

import (
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/owner"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// The metadata of an object, in the order in which it is copied. No error passes but those of xattrTable, and there none
// that a disk can give.
//
//	step                why here
//	xattrs              after the data; before the owner, while the copy is still ours and open to us
//	inode flags         before the owner for the same reason
//	owner               clears set-user-id, set-group-id and security.capability. Left out where it is the copy's already.
//	                    Where the upper keeps owner and mode in an attribute, that is written, with both
//	mode                after the owner for that reason; after the ACL, which touches the group bits and set-group-id.
//	                    A symbolic link has none. Left out where the copy was made with it
//	security.capability after data and owner, which clear it
//	times               last: the data changed mtime
var steps = []func(*metadata) error{
	func(m *metadata) error { return m.copyXattrs(func(name string) bool { return name != capability }) },
	(*metadata).copyFlags,
	func(m *metadata) (err error) {
		if m.recorded, err = m.dst.Record(m.st); m.recorded || err != nil {
			return err
		}
		if m.known && m.st.Uid == m.uid && m.st.Gid == m.gid {
			return nil
		}
		return m.dst.Chown(m.st.Uid, m.st.Gid)
	},
	func(m *metadata) error {
		if m.recorded {
			return nil
		}
		mode := m.st.Mode & 0o7777
		if m.st.Mode&unix.S_IFMT == unix.S_IFLNK || m.known && mode == m.mode && len(m.xattrs) == 0 {
			return nil
		}
		return m.dst.Chmod(mode)
	},
	func(m *metadata) error { return m.copyXattrs(func(name string) bool { return name == capability }) },
	func(m *metadata) error { return m.dst.Utimes(m.st.Atim, m.st.Mtim) },
}

const capability = "security.capability"

// xattrTable says which errors may pass when an extended attribute is read (get) and written (set), by the longest
// prefix of its name. What passes leaves out that attribute alone. Compare ovl_copy_xattr and ovl_must_copy_xattr in
// fs/overlayfs.
var xattrTable = []struct {
	prefix   string
	get, set []unix.Errno
}{
	// An upper that knows no such namespace: as in the kernel, the file is worth more than the note on it.
	{prefix: "", set: []unix.Errno{unix.EOPNOTSUPP}},
	// Only root of the first user namespace may write these, and nobody else can see them.
	{prefix: "trusted.", set: []unix.Errno{unix.EOPNOTSUPP, unix.EPERM}},
	// Without its ACL an object could be open to more than before: the copy-up fails, on an upper without ACLs too.
	{prefix: "system.posix_acl_"},
	// A security attribute of unknown meaning is not dropped, as in the kernel.
	{prefix: "security."},
	// EOVERFLOW: a capability that means nothing in this user namespace.
	{prefix: capability, get: []unix.Errno{unix.EOVERFLOW}},
	// Labels and hashes of the kernel's security modules. The kernel labels the copy itself, and may refuse another label;
	// the mount does not show them as its own.
	{prefix: "security.selinux", get: moduleRefuses, set: moduleRefuses},
	{prefix: "security.SMACK64", get: moduleRefuses, set: moduleRefuses},
	{prefix: "security.apparmor", get: moduleRefuses, set: moduleRefuses},
	{prefix: "security.ima", get: moduleRefuses, set: moduleRefuses},
	{prefix: "security.evm", get: moduleRefuses, set: moduleRefuses},
}

// moduleRefuses: no such module, no right to set labels, the policy forbids it, or does not know this label.
var moduleRefuses = []unix.Errno{unix.EOPNOTSUPP, unix.EPERM, unix.EACCES, unix.EINVAL}

// metadata is one copying of metadata.
type metadata struct {
	src, dst owner.Ref
	st       *sys.Stat
	xattrs   []string // of src, those to copy
	origin   origin
	flags    uint32 // inode flags of src
	marked   bool   // the copy gets marks besides

	// Set by begin: what the copy is made with. Without known, nothing is taken for granted.
	uid, gid, mode uint32
	known          bool

	recorded bool // the upper keeps owner and mode in an attribute, and has them
}

// begin gives the permissions to make the copy with: those it is to have in the end, unless they would keep its owner from
// what is still to be done with it, as writing attributes.
func (m *metadata) begin(w *Work, upper *owner.Scheme) uint32 {
	if upper.Overrides() {
		return upper.Inode(m.st.Mode) & 0o7777
	}
	least := uint32(0o600)
	if m.st.Mode&unix.S_IFMT == unix.S_IFDIR {
		least = 0o700
	}
	m.uid, m.gid, m.mode, m.known = w.uid, w.gid, least, w.known
	final := m.st.Mode & 0o777
	bare := len(m.xattrs) == 0 && m.origin.name == "" && !m.marked && m.st.Mode&unix.S_IFMT == unix.S_IFREG
	if w.known && (final&least == least || bare) {
		m.mode = final
	}
	return m.mode
}

// list notes which extended attributes are to be copied.
func (m *metadata) list(keep func(name string) bool) error {
	names, err := m.src.ListXattr()
	if err != nil {
		return err
	}
	for _, name := range names {
		if keep(name) {
			m.xattrs = append(m.xattrs, name)
		}
	}
	return nil
}

// copy takes all steps for the copy at dst.
func (m *metadata) copy(dst owner.Ref) error {
	m.dst = dst
	for _, step := range steps {
		if err := step(m); err != nil {
			return err
		}
	}
	return nil
}

func (m *metadata) copyXattrs(which func(name string) bool) error {
	for _, name := range m.xattrs {
		if !which(name) {
			continue
		}
		get, set := tolerated(name)
		value, err := m.src.GetXattr(name)
		if err == unix.ENODATA { // removed meanwhile, or listed without being there
			continue
		}
		if err != nil {
			if passes(err, get) {
				continue
			}
			return err
		}
		if err := m.dst.SetXattr(name, value, 0); err != nil && !passes(err, set) {
			return err
		}
	}
	return nil
}

// tolerated looks a name up in xattrTable.
func tolerated(name string) (get, set []unix.Errno) {
	longest := -1
	for _, row := range xattrTable {
		if len(row.prefix) > longest && strings.HasPrefix(name, row.prefix) {
			longest, get, set = len(row.prefix), row.get, row.set
		}
	}
	return get, set
}

func passes(err error, errs []unix.Errno) bool {
	errno, ok := err.(unix.Errno)
	return ok && slices.Contains(errs, errno)
}
