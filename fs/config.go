package fs

import (
	"go.uber.org/zap"

	"github.com/fuse-overlay/fuse-overlay/fs/conn"
	"github.com/fuse-overlay/fuse-overlay/fs/journal"
	"github.com/fuse-overlay/fuse-overlay/fs/stack"
	"github.com/fuse-overlay/fuse-overlay/internal/host"
	"github.com/fuse-overlay/fuse-overlay/internal/owner"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// Config is what one overlay is made of and how it behaves. [Open] reads it and never changes it.
type Config struct {
	// Lowers are the read-only layers, the topmost first. At least one.
	Lowers []string
	// DataOnly are layers below all of Lowers, in which no name is looked up. They hold data that
	// files of Lowers point to.
	DataOnly []string
	// Upper is the writable layer; empty for a read-only overlay.
	Upper string
	// Work is a directory on the file system of Upper, for what is not yet published. Open makes it if
	// it is missing. Upper requires it unless ReadOnly: then only its index is read, with
	// Features.Index. Without Upper it has no meaning.
	Work string
	// ReadOnly uses Upper read only, as the topmost layer. Another mount may use it too, and may
	// write.
	ReadOnly bool
	// Namespace is where the overlay is going to be mounted, as in [conn.MountConfig].
	Namespace *host.MountNamespace
	// BesideOther: if another mount of this program holds Upper, Open logs a warning and uses it as
	// with ReadOnly. Otherwise that is an error.
	BesideOther bool

	// LayersChange: other processes may change the layers while they are mounted. At each open and
	// each lookup the overlay checks its own caches and the kernel's against the layers
	// (docs/SEMANTICS.md, "Layers that change"). Conn.Timeout then counts as 0.
	LayersChange bool
	// Volatile leaves out every fsync. A power cut may damage the upper then, as [Overlay.Mount] notes
	// in Work.
	Volatile bool
	// AfterVolatile accepts, with a warning, an upper that a volatile mount has used. Otherwise that
	// is an error.
	AfterVolatile bool
	// NoFsync leaves out the fsync calls of applications, not those of copy-up (option fsync=0).
	NoFsync bool
	// NoACL switches POSIX ACL support off.
	NoACL bool
	// NoXattrs answers every extended attribute request of the mount with EOPNOTSUPP.
	NoXattrs bool
	// ReadByEngine: a container engine mounts its layers to read them, and accepts EOPNOTSUPP where
	// an object has no xattr. If no object has one, the kernel may stop requesting them.
	ReadByEngine bool
	// Redirects is what renaming a directory with lower parts does, and whether redirects in layers
	// are followed.
	Redirects Redirects
	// Features are the parts of the format on disk that can be chosen.
	Features Features
	// IDs are how the mount shows the user and group IDs of the layers' objects; nil: as they are.
	IDs *owner.IDs
	// Permissions is the xattr in which the upper keeps owner, mode and type of its objects, because
	// the daemon may not set the real ones. There are no POSIX ACLs then. nil: in their inodes, or as
	// the root of the upper has it.
	Permissions *owner.Override
	// StaticNlink shows 1 as the link count of every directory.
	StaticNlink bool
	// SmallInodes shows inode numbers of at most 32 bits.
	SmallInodes bool
	// CacheInodes bounds how many unused inodes the kernel keeps of this mount, and so the memory of
	// both; 0 is no bound. Inodes in use stay.
	CacheInodes int
	// CacheMemory bounds the memory of what the daemon knows of these inodes, in bytes; 0: no bound.
	CacheMemory int64
	// Disabled are optimisations that are turned off, for debugging.
	Disabled Optimisations
	// AccessTimes is when reads of objects of Upper change their access times.
	// [conn.MountConfig].Flags contain the same for the kernel.
	AccessTimes sys.AccessTimes

	// Conn is how the connection to the kernel behaves. [Overlay.Mount] fails if [conn.IOPassthrough]
	// is not possible.
	Conn conn.Config

	// MayProtect does what host.MayProtect does, for a process that may not look at others; nil: that.
	MayProtect func(thread uint32) bool
	// Journal stores what the process that takes over needs when this one dies; nil: none does.
	Journal *journal.Journal
	// inherited are the layers that the process before has opened; nil: this is the first one.
	inherited *stack.Inherited

	// Log receives what an operator needs to know. Never nil.
	Log *zap.Logger
}

// Redirects is what a rename does with a directory that has lower parts, see [stack.Redirects].
type Redirects = stack.Redirects

// The values of option redirect_dir.
const (
	RedirectsOff      = stack.RedirectsOff
	RedirectsOn       = stack.RedirectsOn
	RedirectsFollow   = stack.RedirectsFollow
	RedirectsNoFollow = stack.RedirectsNoFollow
)

// Features are the parts of the format on disk that can be chosen, see [stack.Features].
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
