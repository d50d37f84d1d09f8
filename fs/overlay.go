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
	"github.com/fuse-overlay/fuse-overlay/internal/ondisk"
)

// Overlay is one stack of layers, served or ready to be served. Any number of goroutines may call
// its methods.
type Overlay struct {
	fuse.RawFileSystem // answers ENOSYS to what is not served

	tree
	passthrough passthrough
	guard       guard
	listers     listers
	prefetch    prefetcher
	ranges      changingRanges
	changes     conn.Gate // for requests that change the upper
	damage      damageLog
	pins        pins // if layers change
	copied      copyUpCounts
	quiet       quietXattrs

	// Immutable:
	cfg        Config
	names      ondisk.Names
	layerNames layerNames
	conn       *conn.Conn
	log        *zap.Logger
	selinux    bool // the host has SELinux: security.selinux means something

	// Set before any request is served, by Mount or Connected:
	policy conn.Policy
	kernel notifier
	helped bool // a second thread may work on one request

	births     sync.Once   // sets hasBirths
	hasBirths  bool        // layers have times of birth
	writingOut atomic.Bool // a goroutine runs for writeOut
}

// markersVariable is the environment variable that turns .wh. files into whiteouts. Its name and
// meaning are those of fuse-overlayfs.
const markersVariable = "FUSE_OVERLAYFS_DISABLE_OVL_WHITEOUT"

// Open opens the layers of an overlay, locks its upper and work directory, and sweeps the latter.
// An error is one line that names the directory and the reason. Then nothing has changed.
func Open(cfg Config) (*Overlay, error) {
	o, err := openLayers(cfg)
	if err != nil {
		return nil, err
	}
	if cfg.Journal != nil {
		o.journal = &nodeJournal{cfg.Journal, cfg.Log}
	}
	if err := o.openRoot(); err != nil {
		o.Close()
		return nil, err
	}
	return o, nil
}

// openLayers is Open without the root's node.
func openLayers(cfg Config) (*Overlay, error) {
	cfg.Conn.NoSpin, cfg.Conn.NoDirectIO = cfg.Disabled.has(SpinningReader), cfg.Disabled.has(DirectIOOnNewFile)
	c, err := conn.New(cfg.Conn, cfg.Log)
	if err != nil {
		return nil, err
	}
	s, err := stack.Open(stackConfig(&cfg, c.Slow))
	if err != nil {
		c.Close()
		return nil, err
	}
	adaptConfig(&cfg, s)
	return newOverlay(cfg, s, c), nil
}

// stackConfig is what fs/stack has to know. slow is called before calls that may take long.
func stackConfig(cfg *Config, slow func()) stack.Config {
	return stack.Config{
		Lowers: cfg.Lowers, DataOnly: cfg.DataOnly, Upper: cfg.Upper, Work: cfg.Work,
		ReadOnly: cfg.ReadOnly, BesideOther: cfg.BesideOther, Namespace: cfg.Namespace,
		Markers: os.Getenv(markersVariable) != "",
		Slow:    slow,
		Sync:    !cfg.Volatile, AfterVolatile: cfg.AfterVolatile,
		ACL:         !cfg.NoACL && !cfg.NoXattrs,
		AccessTimes: cfg.AccessTimes, Redirects: cfg.Redirects, Features: cfg.Features, IDs: cfg.IDs, Permissions: cfg.Permissions,
		ListAtOnce: cfg.Disabled.has(UnlistedDirs),
		Inherited:  cfg.inherited,
	}
}

// adaptConfig changes what the opened layers require, and logs their warnings.
func adaptConfig(cfg *Config, s *stack.Stack) {
	if s.AfterVolatile() && cfg.inherited == nil {
		cfg.Log.Warn("the last mount of this upperdir was volatile: a power cut since may have damaged it",
			zap.String("upperdir", cfg.Upper))
	}
	for _, warning := range s.Warnings() {
		cfg.Log.Warn(warning)
	}
	// The kernel's ACLs and the mode go together, and here the mode is not that of the file that would
	// keep the ACL.
	cfg.NoACL = cfg.NoACL || !s.KeepsMode()
	if cfg.Upper != "" && !s.Writable() && cfg.Conn.Timeout < 0 {
		cfg.LayersChange = true // another mount may change the upper
	}
	if cfg.LayersChange {
		s.ExpectChanges()
	}
}

// newOverlay makes an overlay without a root.
func newOverlay(cfg Config, s *stack.Stack, c *conn.Conn) *Overlay {
	width := uint(64)
	if cfg.SmallInodes {
		width = 32
	}
	bounds := initialBounds()
	o := &Overlay{
		RawFileSystem: fuse.NewDefaultRawFileSystem(),
		cfg:           cfg,
		names:         s.Names(),
		conn:          c,
		prefetch:      prefetcher{disabled: cfg.Disabled.has(Prefetch)},
		log:           cfg.Log,
		selinux:       host.HasSELinux(),
		pins:          pins{maxHeld: bounds.handles / 2},
	}
	o.access = access{
		stack:        s,
		nodes:        inodecache.NewTable[*Node](),
		handles:      inodecache.NewLRU[handleKey](bounds.handles, closeHandle),
		parts:        bounds.parts,
		layersChange: cfg.LayersChange,
	}
	o.kernel.conn = c
	o.numbers = newInodeNumbers(&o.access, width)
	o.guard = guard{access: &o.access, writesBack: o.writesBack}
	o.passthrough = passthrough{o: o, counts: openCounts{byID: map[uint64]openCount{}, maxLowers: bounds.handles / 2}}
	o.closer = newCloser(bounds)
	o.pruner = newPruner(&o.access, cfg)
	if !s.Writable() {
		o.changes.Shut(unix.EROFS)
	}
	o.quiet = newQuietXattrs(&cfg, s)
	o.layerNames = newLayerNames(&cfg)
	if s.Overlap() {
		o.numbers.requireUnique()
	}
	return o
}

func (o *Overlay) openRoot() error {
	dir := o.stack.RootDir()
	n := &Node{kind: unix.S_IFDIR, layer: int32(dir.Top()), dir: newDirState(dir)}
	o.nodes.Insert(n)
	o.journal.add(n)
	o.root = n
	return o.initDirInode(n)
}

// Close closes the layers. The overlay must not be mounted any more.
func (o *Overlay) Close() {
	o.quiet.close()
	o.closer.closeWaiting()
	o.handles.Clear()
	o.stack.Close()
	o.conn.Close()
}

// String returns the name of the file system for go-fuse.
func (o *Overlay) String() string { return "fuse-overlay" }

// ShowsACLs reports whether POSIX ACLs of the layers are visible.
func (o *Overlay) ShowsACLs() bool { return !o.cfg.NoACL && !o.cfg.NoXattrs }

// Counts returns how many requests of each kind have been served, see [conn.Conn.Counts].
func (o *Overlay) Counts() map[string]uint64 { return o.conn.Counts() }

// node returns the node of an ID that the kernel has; ESTALE: none.
func (o *Overlay) node(id uint64) (*Node, error) {
	n, ok := o.nodes.Get(id)
	if !ok {
		return nil, unix.ESTALE
	}
	return n, nil
}

// status translates an error for the reply. ENOSYS of a layer becomes EOPNOTSUPP, because after
// ENOSYS the kernel would never send such a request again.
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
