package conn

import (
	"io"
	"time"

	"github.com/fuse-overlay/fuse-overlay/fs/conn/lossprobe"
	"github.com/fuse-overlay/fuse-overlay/fs/journal"
	"github.com/fuse-overlay/fuse-overlay/internal/host"
)

// Config contains the options of a connection. [New] reads it; it never changes.
type Config struct {
	// Timeout is how long the kernel may keep names and attributes; negative is without end.
	Timeout time.Duration
	// Writeback is whether the kernel collects writes (FUSE_WRITEBACK_CACHE).
	Writeback Writeback
	// Loss returns what a probe has found about this kernel; nil: lossprobe.Unknown. [Conn.Attach]
	// calls it once, if Writeback is not WritebackOn and the mount can be written.
	Loss func() lossprobe.Result
	// IO is how the kernel gets at the data of files. [IOPassthrough] excludes WritebackOn.
	IO IO
	// CPUIdle is what the machine's idle CPUs do while requests come fast. With [CPUIdlePoll], [New]
	// fails if the process may not request that.
	CPUIdle CPUIdle
	// NoSpin makes readers block at once if there is no request.
	NoSpin bool
	// NoDirectIO makes new files go through the page cache of the mount.
	NoDirectIO bool
	// MaxWrite is the largest READ and WRITE request, in bytes; 0 is the largest the kernel takes.
	MaxWrite int
}

// Passthrough reports whether files are passed through. io=auto is cached, by what was measured
// (docs/design/passthrough.md).
func (c *Config) Passthrough() bool { return c.IO == IOPassthrough }

// defaultMaxWrite is the largest request that Linux takes without further settings
// (FUSE_MAX_MAX_PAGES).
const defaultMaxWrite = 1 << 20

func (c *Config) maxWrite() int {
	if c.MaxWrite == 0 {
		return defaultMaxWrite
	}
	return c.MaxWrite
}

// IO is how the kernel gets at the data of files.
type IO int

// The values of option io.
const (
	IOAuto        IO = iota // the faster one
	IOCached                // opens cost nothing; data goes through the page cache of the mount
	IOPassthrough           // opens cost two requests; data goes to the layer's file directly
)

// Writeback is a value of option writeback.
type Writeback int

// The values of option writeback.
const (
	WritebackAuto Writeback = iota // on if the kernel may lose appended data without it
	WritebackOff
	WritebackOn
)

// Traits are the properties of a file system that limit what the kernel caches and does by itself.
type Traits struct {
	// Writable: the file system can be changed through the mount.
	Writable bool
	// Changing: other processes may change it behind the mount, so the kernel must not cache it.
	Changing bool
	// StrictAtime: each read counts for the access time.
	StrictAtime bool
	// ACL: it has POSIX ACLs.
	ACL bool
	// Journal stores the requests that are being served; nil: they end with the process.
	Journal *journal.Journal
}

// MountConfig is where and how a file system is attached.
type MountConfig struct {
	// Point is an existing directory, or /dev/fd/N: a /dev/fuse descriptor that another process has
	// mounted.
	Point string
	// Source is the first field of /proc/self/mounts; Type is shown there as fuse.<Type>.
	Source, Type string
	// Context is the SELinux label of everything in the mount. It is ignored without SELinux.
	Context string
	// Flags are mount(2) flags (MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_NOATIME, ...).
	Flags uintptr
	// Direct calls mount(2), which needs CAP_SYS_ADMIN. Otherwise fusermount3 mounts, which knows
	// none of MS_RELATIME, MS_NODIRATIME and MS_LAZYTIME. Ignored for /dev/fd/N.
	Direct bool
	// AllowOther lets other users than the one that mounts use the mount.
	AllowOther bool
	// HelperOutput gets what fusermount3 writes to stderr; nil: it is dropped.
	HelperOutput io.Writer
	// Passing is how many descriptors the process has open that it closes when the mount is up.
	Passing int
	// Debug logs every request.
	Debug bool
	// Attached is called with the mount when it is made, before it is served. It may take rights away
	// from this process. After an error the mount is abandoned.
	Attached func(*Mount) error
	// Namespace is the mount namespace to mount in; nil: this process's own.
	Namespace *host.MountNamespace
}
