package copyup

import (
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/ondisk"
	"github.com/fuse-overlay/fuse-overlay/internal/owner"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// steps copy the metadata of an object, in this order. They ignore only the errors in xattrTable
// and noFlagErrors. No error of a disk is among these.
//
//	step                why here
//	xattrs              after the data; before the owner, while the daemon owns the copy
//	inode flags         before the owner for the same reason
//	owner               clears set-user-id, set-group-id and security.capability. Left out if the
//	                    copy has it already. If the upper stores owner and mode in an attribute,
//	                    this step writes both
//	mode                after the owner for that reason; after the ACL, which changes the group
//	                    bits and set-group-id. A symbolic link has none. Left out if the daemon
//	                    made the copy with it
//	security.capability after data and owner, which clear it
//	times               last: the data changed mtime. A copy that is truncated keeps its new mtime
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
	func(m *metadata) error {
		if m.truncated {
			return m.dst.Utimes(m.st.Atim, unchangedTime)
		}
		return m.dst.Utimes(m.st.Atim, m.st.Mtim)
	},
}

// xattrTable lists the errors that a copy-up ignores when it reads (get) and writes (set) an
// attribute. The row with the longest prefix of its name counts. The copy then lacks the attribute.
// Compare ovl_copy_xattr and ovl_must_copy_xattr in fs/overlayfs.
var xattrTable = []struct {
	prefix   string
	get, set []unix.Errno
}{
	// The upper has no such namespace. The kernel copies the file too.
	{prefix: "", set: []unix.Errno{unix.EOPNOTSUPP}},
	// Only root of the first user namespace reads and writes these.
	{prefix: ondisk.TrustedPrefix, set: []unix.Errno{unix.EOPNOTSUPP, unix.EPERM}},
	// Without its ACL a copy could be open to more users, so the copy-up fails. It also fails if the
	// upper has no ACLs.
	{prefix: ondisk.ACLPrefix},
	// The package does not know what such an attribute means, so the copy-up fails, as in the kernel.
	{prefix: ondisk.SecurityPrefix},
	// EOVERFLOW: the capability has no meaning in this user namespace.
	{prefix: ondisk.Capability, get: []unix.Errno{unix.EOVERFLOW}},
	// Labels and hashes of the kernel's security modules. The kernel labels the copy itself, and
	// may refuse another label. The mount does not show them.
	{prefix: ondisk.SELinux, get: labelErrors, set: labelErrors},
	{prefix: ondisk.SMACK, get: labelErrors, set: labelErrors},
	{prefix: ondisk.AppArmor, get: labelErrors, set: labelErrors},
	{prefix: ondisk.IMA, get: labelErrors, set: labelErrors},
	{prefix: ondisk.EVM, get: labelErrors, set: labelErrors},
}

// labelErrors are the errors of a label: the kernel has no such module, the daemon may not set
// labels, or the policy forbids or does not know the label.
var labelErrors = []unix.Errno{unix.EOPNOTSUPP, unix.EPERM, unix.EACCES, unix.EINVAL}

// unchangedTime makes utimensat(2) leave a time as it is.
var unchangedTime = unix.Timespec{Nsec: unix.UTIME_OMIT}

// metadata is the metadata of one copy.
type metadata struct {
	src, dst owner.Ref
	st       *sys.Stat
	xattrs   []string // the names of the attributes to copy
	origin   Xattr    // without a name: none
	flags    uint32   // inode flags of src
	// truncated: the copy has another size than src, so it has changed at the moment of the copy-up. A
	// crash must not leave the new size with the old mtime.
	truncated bool

	hasOverlayXattrs bool // the copy gets attributes of the overlay besides origin

	// Set by initialMode: the owner and mode with which the daemon makes the copy, if known.
	uid, gid, mode uint32
	known          bool

	recorded bool // the step owner has written owner and mode to the upper's attribute for them
}

// initialMode returns the permission bits with which the daemon makes the copy. They are the final
// ones, unless these forbid the next steps, such as setting an attribute.
func (m *metadata) initialMode(w *Work, upper *owner.Scheme) uint32 {
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

// listXattrs sets m.xattrs to the names for which copies returns true.
func (m *metadata) listXattrs(copies func(name string) bool) error {
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

// copy runs all steps on the copy at dst.
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
		get, set := ignoredErrors(name)
		value, err := m.src.GetXattr(name)
		if err == unix.ENODATA { // a process has removed it, or the list is wrong
			continue
		}
		if err != nil {
			if isOneOf(err, get) {
				continue
			}
			return err
		}
		if err := m.dst.SetXattr(name, value, 0); err != nil && !isOneOf(err, set) {
			return err
		}
	}
	return nil
}

// ignoredErrors returns the errors that xattrTable has for an attribute.
func ignoredErrors(name string) (get, set []unix.Errno) {
	longest := -1
	for _, row := range xattrTable {
		if len(row.prefix) > longest && strings.HasPrefix(name, row.prefix) {
			longest, get, set = len(row.prefix), row.get, row.set
		}
	}
	return get, set
}

func isOneOf(err error, errs []unix.Errno) bool {
	errno, ok := err.(unix.Errno)
	return ok && slices.Contains(errs, errno)
}
