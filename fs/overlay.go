package fs

import (
	"os"
	"sync"
	"sync/atomic"

	"github.com/hanwen/go-fuse/v2/fuse"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/fs/conn"
	"github.com/fuse-overlay/fuse-overlay/fs/stack"
	"github.com/fuse-overlay/fuse-overlay/inodecache"
	"github.com/fuse-overlay/fuse-overlay/internal/host"
	"github.com/fuse-overlay/fuse-overlay/internal/lock"
	"github.com/fuse-overlay/fuse-overlay/internal/ondisk"
)

// Overlay is one stack of layers, served or ready to be. Its methods may be called at any time by any number of callers.
type Overlay struct {
	fuse.RawFileSystem // answers ENOSYS to what is not served

	cfg     Config
	stack   *stack.Stack
	names   ondisk.Names
	root    *Node
	nodes   *inodecache.Table[*Node]
	numbers *inodecache.Numbers
	claims  *inodecache.Claims[*Node] // the numbers of nodes, once apart is set
	apart   atomic.Bool               // two objects could have one number
	handles *inodecache.LRU[handleKey, handle]
	parts   int // of one directory that a request keeps open; immutable
	changes conn.Gate
	listers listers
	next    nextFile
	log     *zap.Logger
	selinux bool // the host has SELinux: security.selinux means something

	conn    *conn.Conn  // immutable
	policy  conn.Policy // set by Connected, before any request is served
	server  server      // set by Connected; nil: no connection to notify
	backer  backer      // the server; set by Connected
	opens   opens       // with passthrough
	growing growing     // with passthrough
	refusal sync.Once   // logs once that the kernel does not take a file for passthrough
	births  sync.Once   // hasBirths is known
	damage  damageLog   // what has been logged of damaged layers

	pins   pins                 // with Config.LayersChange
	walked atomic.Pointer[Node] // with Config.LayersChange: the directory whose parts were looked up last

	hasBirths bool // layers keep times of birth; set by births

	layerNames layerNames // immutable

	helped bool // two may work on one request; set by Mount

	overfull   chan struct{} // wakes the pruner
	writingOut atomic.Bool   // somebody is giving the disk work

	// movesMu: one directory at a time gets another place in the upper. It is held over calls on
	// the upper, never over one on a lower. A goroutine that holds it may hold the mu of
	// directories that do not lie in one another, see lockTwo.
	movesMu lock.Mutex[lock.Moves]
	moves   atomic.Uint32 // odd while one does; changes with movesMu held
}

// server is what is used of [fuse.Server] while it serves.
type server interface {
	backer
	pruned
	// InodeNotify tells the kernel that the attributes of an inode have changed, and from offset 0 on its data as well.
	InodeNotify(id uint64, offset, length int64) fuse.Status
	// InodeNotifyStoreCache puts data into the page cache, and makes the file longer if it lies beyond its end.
	InodeNotifyStoreCache(id uint64, offset int64, data []byte) fuse.Status
}

// markersVariable asks for .wh. files as whiteouts; the name and its meaning are fuse-overlayfs'.
const markersVariable = "FUSE_OVERLAYFS_DISABLE_OVL_WHITEOUT"

// Open opens the layers of an overlay, takes its upper and work directory for itself and sweeps the latter. An error is
// one line that names the directory and the reason; then nothing has changed.
func Open(cfg Config) (*Overlay, error) {
	cfg.Conn.NoSpin, cfg.Conn.NoDirectIO = cfg.Disabled.has(SpinningReader), cfg.Disabled.has(DirectIOOnNewFile)
	c, err := conn.New(cfg.Conn, cfg.Log)
	if err != nil {
		return nil, err
	}
	s, err := stack.Open(stack.Config{
		Lowers: cfg.Lowers, DataOnly: cfg.DataOnly, Upper: cfg.Upper, Work: cfg.Work,
		ReadOnly: cfg.ReadOnly, BesideOther: cfg.BesideOther, Namespace: cfg.Namespace,
		Markers: os.Getenv(markersVariable) != "",
		Slow:    c.Slow,
		Sync:    !cfg.Volatile, AfterVolatile: cfg.AfterVolatile,
		ACL:         !cfg.NoACL && !cfg.NoXattrs,
		AccessTimes: cfg.AccessTimes, Redirects: cfg.Redirects, Features: cfg.Features, IDs: cfg.IDs, Permissions: cfg.Permissions,
		ListAtOnce: cfg.Disabled.has(UnlistedDirs),
	})
	if err != nil {
		c.Close()
		return nil, err
	}
	if s.AfterVolatile() {
		cfg.Log.Warn("the last mount of this upperdir was volatile: a power cut since may have damaged it", zap.String("upperdir", cfg.Upper))
	}
	for _, warning := range s.Warnings() {
		cfg.Log.Warn(warning)
	}
	// The kernel's ACLs and the mode go together, and here the mode is not that of the file that would keep the ACL.
	cfg.NoACL = cfg.NoACL || !s.KeepsMode()
	if cfg.Upper != "" && !s.Writable() && cfg.Conn.Timeout < 0 {
		cfg.LayersChange = true // another mount may change the upper
	}
	if cfg.LayersChange {
		s.ExpectChanges()
	}
	width := uint(64)
	if cfg.SmallInodes {
		width = 32
	}
	keep := initialBounds()
	o := &Overlay{
		RawFileSystem: fuse.NewDefaultRawFileSystem(),
		cfg:           cfg,
		stack:         s,
		names:         s.Names(),
		nodes:         inodecache.NewTable[*Node](),
		numbers:       inodecache.NewNumbers(s.Devices(), width, s.NumberBits()),
		claims:        inodecache.NewClaims[*Node](),
		handles:       inodecache.NewLRU[handleKey](keep.handles, closeHandle),
		next:          nextFile{disabled: cfg.Disabled.has(Prefetch)},
		log:           cfg.Log,
		selinux:       host.HasSELinux(),
		conn:          c,
		overfull:      make(chan struct{}, 1),
		parts:         keep.parts,
		pins:          pins{most: keep.handles / 2},
		opens:         opens{byID: map[uint64]opened{}, most: keep.handles / 2},
	}
	if !s.Writable() {
		o.changes.Shut(unix.EROFS)
	}
	o.layerNames = newLayerNames(&cfg)
	if s.Overlap() {
		o.tellApart()
	}
	if err := o.openRoot(); err != nil {
		o.Close()
		return nil, err
	}
	return o, nil
}

func (o *Overlay) openRoot() error {
	dir := o.stack.RootDir()
	n := &Node{kind: unix.S_IFDIR, layer: int32(dir.Top()), dir: newDirState(dir)}
	o.nodes.Insert(n)
	o.root = n
	return o.settleDir(n)
}

// Close gives the layers back. The overlay must not be mounted any more.
func (o *Overlay) Close() {
	o.handles.Clear()
	o.stack.Close()
	o.conn.Close()
}

// String names the file system for go-fuse.
func (o *Overlay) String() string { return "fuse-overlay" }

// Counts returns how many requests of each kind have been served, see [conn.Conn.Counts].
func (o *Overlay) Counts() map[string]uint64 { return o.conn.Counts() }

// node returns the node of an id that the kernel holds.
func (o *Overlay) node(id uint64) (*Node, error) {
	n, ok := o.nodes.Get(id)
	if !ok {
		return nil, unix.ESTALE
	}
	return n, nil
}

// status turns an error into the kernel's answer. ENOSYS from a layer would switch a whole operation off for the life of
// the mount, so it is told as EOPNOTSUPP.
func (o *Overlay) status(op string, err error) fuse.Status {
	switch e := err.(type) {
	case nil:
		return fuse.OK
	case unix.Errno:
		if e == unix.ENOSYS {
			return fuse.Status(unix.EOPNOTSUPP)
		}
		return fuse.Status(e)
	}
	o.log.Error("unknown error", zap.String("operation", op), zap.Error(err))
	return fuse.EIO
}
