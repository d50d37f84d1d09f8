package ondisk

import "strings"

// Extended attributes to which the kernel and file systems give a meaning.
const (
	AccessACL  = ACLPrefix + "access"
	DefaultACL = ACLPrefix + "default"
	Capability = SecurityPrefix + "capability"
	SELinux    = SecurityPrefix + "selinux"
	SMACK      = SecurityPrefix + "SMACK64" // begins the names of several
	AppArmor   = SecurityPrefix + "apparmor"
	IMA        = SecurityPrefix + "ima"
	EVM        = SecurityPrefix + "evm"
)

// Namespaces of the kernel, as prefixes of names.
const (
	UserPrefix     = "user."
	TrustedPrefix  = "trusted."
	SecurityPrefix = "security."
	ACLPrefix      = "system.posix_acl_"
)

// Extended attributes that keep owner, mode, type and device number of an object (override_stat).
const (
	// OverrideContainers is that of containers/storage.
	OverrideContainers = OverrideContainersPrefix + "stat"
	// OverrideContainersPrefix begins the names under which attributes of security. are stored
	// beside [OverrideContainers].
	OverrideContainersPrefix = UserPrefix + "containers.override_"
	// OverridePrivileged and OverrideOlder are those of fuse-overlayfs.
	OverridePrivileged = securityFuseoverlayfs + "override_stat"
	OverrideOlder      = userFuseoverlayfs + "override_stat"
)

// Prefixes of the overlay's own names.
const (
	trustedOverlay        = TrustedPrefix + "overlay."
	userOverlay           = UserPrefix + "overlay."
	userFuseoverlayfs     = UserPrefix + "fuseoverlayfs."
	securityFuseoverlayfs = SecurityPrefix + "fuseoverlayfs."
)

// Attr is an extended attribute of the overlay, in whatever [Namespace].
type Attr uint8

// The extended attributes of the overlay. Package whiteout gives [Opaque] and [Whiteout] their
// values.
const (
	Opaque Attr = iota
	Whiteout
	Redirect
	Metacopy
	Origin
	Impure
	Nlink
	Upper
	UUID
	Protattr
	attrCount
)

// attrNames are the names of the attributes without the prefixes of their namespaces.
var attrNames = [attrCount]string{
	Opaque: "opaque", Whiteout: "whiteout", Redirect: "redirect", Metacopy: "metacopy", Origin: "origin",
	Impure: "impure", Nlink: "nlink", Upper: "upper", UUID: "uuid", Protattr: "protattr",
}

// Namespace is the namespace of the overlay's extended attributes of an object, or of those that an
// upper gets.
type Namespace uint8

const (
	// NoXattrs: the file system stores no extended attributes of the overlay.
	NoXattrs Namespace = iota
	// Trusted: every object can have them. Only root of the first user namespace reads and writes
	// them.
	Trusted
	// User: regular files and directories can have them. The owner of an object may write them.
	User
	// Fuseoverlayfs: fuse-overlayfs wrote [Opaque] in it, and nothing else. It is read and not
	// written.
	Fuseoverlayfs

	namespaceCount
)

// prefixes are the prefixes of names, by namespace.
var prefixes = [namespaceCount]string{Trusted: trustedOverlay, User: userOverlay, Fuseoverlayfs: userFuseoverlayfs}

// fullNames are the names with their prefixes: no request puts one together.
var fullNames = func() (names [namespaceCount][attrCount]string) {
	for ns, prefix := range prefixes {
		for a, name := range attrNames {
			names[ns][a] = prefix + name
		}
	}
	return names
}()

// Written are the namespaces in which an upper can be written, the best first.
var Written = [...]Namespace{Trusted, User}

// Name is the name of an attribute in the namespace. Precondition: ns is not [NoXattrs].
func (ns Namespace) Name(a Attr) string { return fullNames[ns][a] }

// OnAnyType reports whether objects of every type can have attributes of the namespace, not only
// regular files and directories.
func (ns Namespace) OnAnyType() bool { return ns == Trusted }

// ByOwner reports whether the owner of an object may write attributes of the namespace.
func (ns Namespace) ByOwner() bool { return strings.HasPrefix(prefixes[ns], UserPrefix) }
