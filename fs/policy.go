package fs

import (
	"math"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// policy is what the kernel gets to cache and to do by itself: decided once, at mount.
type policy struct {
	timeout   time.Duration
	noOpen    bool // OPEN is answered by ENOSYS
	noOpendir bool // OPENDIR is answered by ENOSYS

	direct      bool // CREATE is answered, OPEN is not
	passthrough bool // OPEN is answered, with a backing file where that can be

	strict bool // each reading counts for the access time, so that opens are answered and pages are dropped at each

	offered     uint64 // the flags of INIT that the kernel has
	checksFlags bool   // the daemon checks the right to change inode flags, not the kernel
}

// IO is how the kernel comes to the data of files.
type IO int

// The values of option io.
const (
	IOAuto        IO = iota // what is faster
	IOCached                // opens cost nothing; data goes through the page cache of the mount
	IOPassthrough           // opens cost two requests; data goes to the layer's file directly
)

// passthrough settles io=auto: it is cached, by what was measured (docs/PERFORMANCE.md).
func (c *Config) passthrough() bool { return c.IO == IOPassthrough }

// endless is as good as no timeout: 68 years.
const endless = math.MaxInt32 * time.Second

// capabilities are the INIT flags that are asked for besides go-fuse's own choice. A kernel without one does it in its
// older way, and so does the policy:
//
//	WRITEBACK_CACHE      small writes are collected in the page cache
//	NO_OPENDIR_SUPPORT   no OPENDIR and RELEASEDIR; the kernel keeps listings
//	HANDLE_KILLPRIV_V2   no GETXATTR of security.capability before a write
//	SETXATTR_EXT         tells when an ACL takes sgid away
//	DONT_MASK            the umask comes along: a default ACL takes its place
//	IOCTL_DIR            lsattr and chattr of directories
//	DIRECT_IO_ALLOW_MMAP a file can be mapped by who writes it past the page cache
//	ATOMIC_O_TRUNC       with passthrough: OPEN says that the data is not needed, before it is copied up
//
// PASSTHROUGH is go-fuse's own choice, and is taken away where it is not wanted (unwanted).
func (o *Overlay) capabilities() uint64 {
	caps := uint64(fuse.CAP_NO_OPENDIR_SUPPORT | fuse.CAP_HANDLE_KILLPRIV_V2 | fuse.CAP_SETXATTR_EXT |
		fuse.CAP_DONT_MASK | fuse.CAP_IOCTL_DIR | fuse.CAP_DIRECT_IO_ALLOW_MMAP)
	if o.writeback {
		caps |= fuse.CAP_WRITEBACK_CACHE
	}
	if o.cfg.passthrough() {
		caps |= fuse.CAP_ATOMIC_O_TRUNC
	}
	return caps
}

// chooseWriteback decides whether the kernel collects writes. Without an option it does so only
// where data would be lost otherwise: the kernel then forgets st_blocks at each close, so each
// open, fstat and close of a cached tree costs a GETATTR. Without a result of the probe, data
// counts as lost.
func (o *Overlay) chooseWriteback() {
	if !o.stack.Writable() || o.cfg.passthrough() {
		return
	}
	if o.cfg.LayersChange { // with it the kernel would ignore the size that a layer reports; openAnew replaces it
		if o.cfg.Writeback == WritebackOn {
			o.log.Warn("writeback=1 is ignored: with timeout=0 layers may change, which the kernel would not see")
		}
		return
	}
	loss := LossUnknown
	if o.cfg.Loss != nil && o.cfg.Writeback != WritebackOn {
		loss = o.cfg.Loss()
	}
	o.writeback = o.cfg.Writeback == WritebackOn || o.cfg.Writeback == WritebackAuto && loss != LossNone
	switch {
	case o.cfg.Writeback == WritebackOff && loss == LossFound:
		o.log.Warn("writeback=0: with this kernel, data that is appended to a file while its last page is dirty by a shared mapping is lost")
	case o.cfg.Writeback == WritebackAuto && loss == LossFound:
		o.log.Info("writeback=1: this kernel loses data appended to mapped files without it")
	case o.cfg.Writeback == WritebackAuto && loss == LossUnknown:
		o.log.Info("writeback=1: whether this kernel loses data appended to mapped files without it could not be found out")
	case o.cfg.Writeback == WritebackAuto:
		o.log.Info("writeback=0: this kernel does not lose data appended to mapped files")
	}
}

// unwanted are the INIT flags that go-fuse would ask for. A mount with PASSTHROUGH counts as one more level of stacked file
// systems, of which the kernel allows two.
func (o *Overlay) unwanted() uint64 {
	if o.cfg.passthrough() {
		return 0
	}
	return fuse.CAP_PASSTHROUGH
}

// minorOfFileattr is the protocol of Linux 5.14. Since 5.13, whose protocol is that of 5.12, the kernel itself checks the caller of
// FS_IOC_SETFLAGS (fuse_fileattr_set).
const minorOfFileattr = 34

// Init settles the policy by what the kernel offers.
func (o *Overlay) Init(s *fuse.Server) {
	o.server, o.backer = s, s
	kernel := s.KernelSettings()
	offered := kernel.Flags64()
	strict := o.cfg.AccessTimes.Strict() && o.stack.Writable()
	o.policy = policy{
		timeout:   o.cfg.Timeout,
		noOpen:    offered&fuse.CAP_NO_OPEN_SUPPORT != 0 && !strict && !o.cfg.LayersChange,
		noOpendir: offered&fuse.CAP_NO_OPENDIR_SUPPORT != 0 && !strict && !o.cfg.LayersChange,
		strict:    strict,

		passthrough: o.cfg.passthrough() && offered&fuse.CAP_PASSTHROUGH != 0,
		offered:     offered,

		checksFlags: kernel.Minor < minorOfFileattr,
	}
	// Linux 6.6 offers that flag, and drops the pages of what is written past them.
	o.policy.direct = o.policy.noOpen && !o.policy.passthrough && !o.writeback && offered&fuse.CAP_DIRECT_IO_ALLOW_MMAP != 0 &&
		!o.cfg.Disabled.has(DirectIOOnNewFile)
	switch {
	case o.cfg.LayersChange:
		o.policy.timeout = 0
	case o.policy.timeout < 0:
		o.policy.timeout = endless
	}
}
