package ondisk

import "strings"

// Extended attributes that file systems and the kernel give a meaning.
const (
	AccessACL  = "system.posix_acl_access"
	DefaultACL = "system.posix_acl_default"
	Capability = "security.capability"
	SELinux    = "security.selinux"
	SMACK      = "security.SMACK64" // and names that begin so
	AppArmor   = "security.apparmor"
	IMA        = "security.ima"
	EVM        = "security.evm"
)

// Prefixes of names: namespaces of the kernel, and parts of them.
const (
	UserPrefix     = "user."
	TrustedPrefix  = "trusted."
	SecurityPrefix = "security."
	ACLPrefix      = "system.posix_acl_"
)

// Extended attributes that keep owner, mode, type and device number of an object (override_stat).
const (
	// OverrideContainers is that of containers/storage. Attributes of security. are stored with OverrideContainersPrefix then.
	OverrideContainers       = overrideContainersPrefix + "stat"
	OverrideContainersPrefix = overrideContainersPrefix
	// OverridePrivileged and OverrideOlder are those of older programs in user space.
	OverridePrivileged = securityFuseoverlayfs + overrideStat
	OverrideOlder      = userFuseoverlayfs + overrideStat
)

const (
	overrideContainersPrefix = "user.containers.override_"
	securityFuseoverlayfs    = "security.fuseoverlayfs."
	userFuseoverlayfs        = "user.fuseoverlayfs."
	trustedOverlay           = "trusted.overlay."
	userOverlay              = "user.overlay."
	overrideStat             = "override_stat"
)

// Attr is what an extended attribute of the overlay says; its name is that with the prefix of a [Namespace].
type Attr string

// The extended attributes of the overlay.
const (
	Opaque   Attr = "opaque"
	Whiteout Attr = "whiteout"
	Redirect Attr = "redirect"
	Metacopy Attr = "metacopy"
	Origin   Attr = "origin"
	Impure   Attr = "impure"
	Nlink    Attr = "nlink"
	Upper    Attr = "upper"
	UUID     Attr = "uuid"
	Protattr Attr = "protattr"
)

// Namespace is where the overlay's extended attributes of an object are, or are to be written.
type Namespace uint8

const (
	// NoXattrs: the file system takes none.
	NoXattrs Namespace = iota
	// Trusted: any object takes them; only root of the first user namespace reads and writes them.
	Trusted
	// User: regular files and directories take them; their owner may write them.
	User
	// Fuseoverlayfs: read only. Older programs in user space wrote [Opaque] so, and nothing else.
	Fuseoverlayfs
)

// prefixes are those of the names, by namespace.
var prefixes = [...]string{Trusted: trustedOverlay, User: userOverlay, Fuseoverlayfs: userFuseoverlayfs}

// Written are the namespaces that an upper can be written with, the best first.
var Written = [...]Namespace{Trusted, User}

// Name is the name of an attribute in the namespace. Precondition: ns is not [NoXattrs].
func (ns Namespace) Name(a Attr) string { return prefixes[ns] + string(a) }

// OnAnyType reports whether objects of all types take attributes of the namespace, and not regular files and directories only.
func (ns Namespace) OnAnyType() bool { return ns == Trusted }

// ByOwner reports whether the owner of an object may write attributes of the namespace.
func (ns Namespace) ByOwner() bool { return strings.HasPrefix(prefixes[ns], UserPrefix) }
