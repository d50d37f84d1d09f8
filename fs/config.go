package fs

import (
	"time"

	"go.uber.org/zap"

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
	// Namespace is where the overlay will be mounted, as in [MountConfig].
	Namespace *host.MountNamespace
	// BesideOther is ReadOnly, with a warning, where another mount of this program holds Upper; otherwise that is an error.
	BesideOther bool

	// Timeout is how long the kernel may keep names and attributes; negative is without end.
	Timeout time.Duration
	// LayersChange: other processes may change the layers while they are mounted. At each open and
	// each look-up the overlay checks what it and the kernel cache against the layers
	// (docs/SEMANTICS.md, "Layers that change"). Timeout then counts as 0.
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
	// Xino says how inode numbers are made up where layers lie on several file systems.
	Xino Xino
	// IDs are how the ids of the layers' objects are shown; nil: as they are.
	IDs *owner.IDs
	// Permissions is where the upper keeps owner, mode and type of its objects: an attribute, because the daemon may not set
	// the real ones; nil: in their inodes, or as its root says. There are no POSIX ACLs then.
	Permissions *owner.Override
	// StaticNlink shows 1 as the link count of every directory.
	StaticNlink bool
	// SmallInodes shows inode numbers of at most 32 bits.
	SmallInodes bool
	// Writeback is whether the kernel collects writes (FUSE_WRITEBACK_CACHE).
	Writeback Writeback
	// Loss is what a probe has found about this kernel. [Overlay.Mount] calls it once, if Writeback is not WritebackOn and the
	// mount can be written; nil: LossUnknown.
	Loss func() Loss
	// CacheInodes bounds how many inodes the kernel keeps of this mount when nobody uses them, and so the memory of both; 0
	// is no bound. Those in use stay.
	CacheInodes int
	// IO is how the kernel comes to the data of files. [IOPassthrough] excludes WritebackOn; [Overlay.Mount] fails where it
	// cannot be had.
	IO IO
	// CPUIdle is what the machine's idle CPUs do while requests come fast. [Open] fails where [CPUIdlePoll] cannot be had.
	CPUIdle CPUIdle
	// Disabled are optimisations that are turned off, for debugging.
	Disabled Optimisations
	// MaxWrite is the largest READ and WRITE request, in bytes; 0 is the largest the kernel takes.
	MaxWrite int

	// AccessTimes is when reads of objects of Upper change their access times. [MountConfig].Flags
	// hold the same for the kernel.
	AccessTimes sys.AccessTimes

	// Log receives what an operator should know. Never nil.
	Log *zap.Logger
}

// Writeback is a value of option writeback.
type Writeback int

// The values of option writeback.
const (
	WritebackAuto Writeback = iota // on where the kernel may lose appended data without it
	WritebackOff
	WritebackOn
)

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

// Xino is a value of option xino.
type Xino int

// The values of option xino.
const (
	XinoAuto Xino = iota // the number of a layer's file system in the upper bits, where they are free
	XinoOff              // never
	XinoOn               // always
)

// MountConfig says where and how an [Overlay] is attached.
type MountConfig struct {
	// Point is an existing directory, or /dev/fd/N: a /dev/fuse descriptor that somebody else has mounted.
	Point string
	// Source is the first field of /proc/self/mounts; Type is shown there as fuse.<Type>.
	Source, Type string
	// Context is the SELinux label of everything in the mount; without meaning on a host without SELinux.
	Context string
	// Flags are mount(2) flags (MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_NOATIME, ...).
	Flags uintptr
	// Direct calls mount(2), which takes CAP_SYS_ADMIN; else fusermount3 is asked, and knows none of MS_RELATIME,
	// MS_NODIRATIME and MS_LAZYTIME. Without meaning for /dev/fd/N.
	Direct bool
	// AllowOther lets users other than the mounting one in.
	AllowOther bool
	// Passing is how many descriptors the process has open that it closes when the mount is up.
	Passing int
	// Debug logs every request.
	Debug bool
	// Namespace is the mount namespace to mount in; nil: this process's own.
	Namespace *host.MountNamespace
}
