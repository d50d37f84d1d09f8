package fs

import (
	"go.uber.org/zap"

	"github.com/fuse-overlay/fuse-overlay/fs/conn"
	"github.com/fuse-overlay/fuse-overlay/fs/stack"
	"github.com/fuse-overlay/fuse-overlay/internal/host"
	"github.com/fuse-overlay/fuse-overlay/internal/owner"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// Config says what one overlay is made of and how it behaves. It is read by [Open] and never changed.
type Config struct {
	// Lowers are the read-only layers, the topmost first. At least one.
	Lowers []string
	// DataOnly are layers below all of Lowers that no name is looked up in: they hold data that files of Lowers point to.
	DataOnly []string
	// Upper is the writable layer; empty for a read-only overlay.
	Upper string
	// Work is a directory on the file system of Upper, for what is not yet published; made when missing.
	// Required with Upper unless ReadOnly, meaningless without.
	Work string
	// ReadOnly has Upper read only, as the topmost layer. It may be in use by another mount, and can be mounted by another one
	// meanwhile, which may write.
	ReadOnly bool
	// Namespace is where the overlay will be mounted, as in [conn.MountConfig].
	Namespace *host.MountNamespace
	// BesideOther is ReadOnly, with a warning, where another mount of this program holds Upper; otherwise that is an error.
	BesideOther bool

	// LayersChange: other processes may change the layers while they are mounted. At each open and
	// each look-up the overlay checks what it and the kernel cache against the layers
	// (docs/SEMANTICS.md, "Layers that change"). Conn.Timeout then counts as 0.
	LayersChange bool
	// Volatile leaves out every fsync: after a power cut the upper may be damaged, as [Overlay.Mount] notes in Work.
	Volatile bool
	// AfterVolatile goes on, with a warning, with an upper that a volatile mount has used; otherwise it is refused.
	AfterVolatile bool
	// NoFsync leaves out the fsync calls of applications, not those of copy-up (option fsync=0).
	NoFsync bool
	// NoACL switches POSIX ACL support off.
	NoACL bool
	// NoXattrs answers every extended attribute request of the mount with EOPNOTSUPP.
	NoXattrs bool
	// Redirects says what renaming a directory with lower parts does, and whether redirects in layers are followed.
	Redirects Redirects
	// Features are the parts of the format on disk that can be chosen.
	Features Features
	// IDs are how the ids of the layers' objects are shown; nil: as they are.
	IDs *owner.IDs
	// Permissions is where the upper keeps owner, mode and type of its objects: an attribute, because the daemon may not set
	// the real ones; nil: in their inodes, or as its root says. There are no POSIX ACLs then.
	Permissions *owner.Override
	// StaticNlink shows 1 as the link count of every directory.
	StaticNlink bool
	// SmallInodes shows inode numbers of at most 32 bits.
	SmallInodes bool
	// CacheInodes bounds how many inodes the kernel keeps of this mount when nobody uses them, and so the memory of both; 0
	// is no bound. Those in use stay.
	CacheInodes int
	// Disabled are optimisations that are turned off, for debugging.
	Disabled Optimisations
	// AccessTimes is when reads of objects of Upper change their access times. [conn.MountConfig].Flags
	// hold the same for the kernel.
	AccessTimes sys.AccessTimes

	// Conn is how the connection to the kernel behaves. [Overlay.Mount] fails where [conn.IOPassthrough] cannot be had.
	Conn conn.Config

	// Log receives what an operator should know. Never nil.
	Log *zap.Logger
}

// Redirects is what is done with directories that have lower parts when they are renamed; see [stack.Redirects].
type Redirects = stack.Redirects

// The values of option redirect_dir.
const (
	RedirectsOff      = stack.RedirectsOff
	RedirectsOn       = stack.RedirectsOn
	RedirectsFollow   = stack.RedirectsFollow
	RedirectsNoFollow = stack.RedirectsNoFollow
)

// Features are the parts of the format on disk that can be chosen; see [stack.Features].
type Features = stack.Features

// UUID is a value of option uuid.
type UUID = stack.UUID

// Verity is a value of option verity.
type Verity = stack.Verity

// The values of options uuid and verity.
const (
	UUIDAuto = stack.UUIDAuto
	UUIDOff  = stack.UUIDOff
	UUIDNull = stack.UUIDNull
	UUIDOn   = stack.UUIDOn

	VerityOff     = stack.VerityOff
	VerityOn      = stack.VerityOn
	VerityRequire = stack.VerityRequire
)
