package copyup

import (
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/ondisk"
	"github.com/fuse-overlay/fuse-overlay/internal/owner"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// The metadata of an object, in the order in which it is copied. Only errors of xattrTable are
// ignored, and no error of a disk is among them.
//
//	step                why here
//	xattrs              after the data; before the owner, while the daemon owns the copy
//	inode flags         before the owner for the same reason
//	owner               clears set-user-id, set-group-id and security.capability. Left out if the
//	                    copy has it already. If the upper keeps owner and mode in an attribute,
//	                    this step writes both
//	mode                after the owner for that reason; after the ACL, which changes the group
//	                    bits and set-group-id. A symbolic link has none. Left out if the copy was
//	                    made with it
//	security.capability after data and owner, which clear it
//	times               last: the data changed mtime
var steps = []func(*metadata) error{
	func(m *metadata) error {
		return m.copyXattrs(func(name string) bool { return name != ondisk.Capability })
	},
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
	func(m *metadata) error {
		return m.copyXattrs(func(name string) bool { return name == ondisk.Capability })
	},
	func(m *metadata) error { return m.dst.Utimes(m.st.Atim, m.st.Mtim) },
}

// xattrTable lists the errors that are ignored when an attribute is read (get) and written (set),
// by the longest prefix of its name. The copy then lacks that attribute. Compare ovl_copy_xattr and
// ovl_must_copy_xattr in fs/overlayfs.
var xattrTable = []struct {
	prefix   string
	get, set []unix.Errno
}{
	// The upper has no such namespace: the file is copied all the same, as by the kernel.
	{prefix: "", set: []unix.Errno{unix.EOPNOTSUPP}},
	// Only root of the first user namespace reads and writes these.
	{prefix: ondisk.TrustedPrefix, set: []unix.Errno{unix.EOPNOTSUPP, unix.EPERM}},
	// Without its ACL an object could be open to more users: the copy-up fails, on an upper without
	// ACLs too.
	{prefix: ondisk.ACLPrefix},
	// No security attribute of unknown meaning is left out, as by the kernel.
	{prefix: ondisk.SecurityPrefix},
	// EOVERFLOW: the capability has no meaning in this user namespace.
	{prefix: ondisk.Capability, get: []unix.Errno{unix.EOVERFLOW}},
	// Labels and hashes of the kernel's security modules. The kernel labels the copy itself, and
	// may refuse another label. The mount does not show them.
	{prefix: ondisk.SELinux, get: moduleRefuses, set: moduleRefuses},
	{prefix: ondisk.SMACK, get: moduleRefuses, set: moduleRefuses},
	{prefix: ondisk.AppArmor, get: moduleRefuses, set: moduleRefuses},
	{prefix: ondisk.IMA, get: moduleRefuses, set: moduleRefuses},
	{prefix: ondisk.EVM, get: moduleRefuses, set: moduleRefuses},
}

// moduleRefuses: there is no such module, the daemon may not set labels, or the policy forbids or
// does not know the label.
var moduleRefuses = []unix.Errno{unix.EOPNOTSUPP, unix.EPERM, unix.EACCES, unix.EINVAL}

// metadata is the metadata of one copy.
type metadata struct {
	src, dst owner.Ref
	st       *sys.Stat
	xattrs   []string // the attributes of src that are copied
	origin   Xattr    // without a name: none
	flags    uint32   // inode flags of src

	hasOverlayXattrs bool // the copy gets attributes of the overlay besides origin

	// Set by begin: owner and mode with which the copy is made, if known.
	uid, gid, mode uint32
	known          bool

	recorded bool // the upper keeps owner and mode in an attribute, which is written
}

// begin returns the permission bits with which the copy is made: the final ones, unless those would
// keep its owner from the next steps, such as writing attributes.
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
	bare := len(m.xattrs) == 0 && m.origin.Name == "" && !m.hasOverlayXattrs && m.st.Mode&unix.S_IFMT == unix.S_IFREG
	if w.known && (final&least == least || bare) {
		m.mode = final
	}
	return m.mode
}

// list sets m.xattrs.
func (m *metadata) list(copies func(name string) bool) error {
	names, err := m.src.ListXattr()
	if err != nil {
		return err
	}
	for _, name := range names {
		if copies(name) {
			m.xattrs = append(m.xattrs, name)
		}
	}
	return nil
}

// copy takes all steps, for the copy at dst.
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
		if err == unix.ENODATA { // removed meanwhile, or listed by mistake
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

// tolerated returns the errors of xattrTable for a name.
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
