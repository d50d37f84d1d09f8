package conn

import (
	"math"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/fuse-overlay/fuse-overlay/fs/conn/lossprobe"
)

// Policy is what the kernel gets to cache and to do by itself: decided once, at mount.
type Policy struct {
	// Timeout is how long the kernel keeps names and attributes.
	Timeout   time.Duration
	NoOpen    bool // OPEN is answered by ENOSYS
	NoOpendir bool // OPENDIR is answered by ENOSYS

	DirectIO    bool // CREATE is answered, OPEN is not
	Passthrough bool // OPEN is answered, with a backing file where that can be
	Writeback   bool // the kernel collects writes

	StrictAtime bool // each reading counts for the access time, so that opens are answered and pages are dropped at each

	Offered     uint64 // the flags of INIT that the kernel has
	ChecksFlags bool   // the daemon checks the right to change inode flags, not the kernel
}

// Endless is as good as no timeout: 68 years.
const Endless = math.MaxInt32 * time.Second

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
func (m *Mount) capabilities() uint64 {
	caps := uint64(fuse.CAP_NO_OPENDIR_SUPPORT | fuse.CAP_HANDLE_KILLPRIV_V2 | fuse.CAP_SETXATTR_EXT |
		fuse.CAP_DONT_MASK | fuse.CAP_IOCTL_DIR | fuse.CAP_DIRECT_IO_ALLOW_MMAP)
	if m.writeback {
		caps |= fuse.CAP_WRITEBACK_CACHE
	}
	if m.conn.cfg.Passthrough() {
		caps |= fuse.CAP_ATOMIC_O_TRUNC
	}
	return caps
}

// chooseWriteback decides whether the kernel collects writes. Without an option it does so only
// where data would be lost otherwise: the kernel then forgets st_blocks at each close, so each
// open, fstat and close of a cached tree costs a GETATTR. Without a result of the probe, data
// counts as lost.
func (c *Conn) chooseWriteback(t Traits) bool {
	if !t.Writable || c.cfg.Passthrough() {
		return false
	}
	if t.Changing { // with it the kernel would ignore the size that a layer reports
		if c.cfg.Writeback == WritebackOn {
			c.log.Warn("writeback=1 is ignored: with timeout=0 layers may change, which the kernel would not see")
		}
		return false
	}
	loss := lossprobe.Unknown
	if c.cfg.Loss != nil && c.cfg.Writeback != WritebackOn {
		loss = c.cfg.Loss()
	}
	switch {
	case c.cfg.Writeback == WritebackOff && loss == lossprobe.Found:
		c.log.Warn("writeback=0: with this kernel, data that is appended to a file while its last page is dirty by a shared mapping is lost")
	case c.cfg.Writeback == WritebackAuto && loss == lossprobe.Found:
		c.log.Info("writeback=1: this kernel loses data appended to mapped files without it")
	case c.cfg.Writeback == WritebackAuto && loss == lossprobe.Unknown:
		c.log.Info("writeback=1: whether this kernel loses data appended to mapped files without it could not be found out")
	case c.cfg.Writeback == WritebackAuto:
		c.log.Info("writeback=0: this kernel does not lose data appended to mapped files")
	}
	return c.cfg.Writeback == WritebackOn || c.cfg.Writeback == WritebackAuto && loss != lossprobe.None
}

// unwanted are the INIT flags that go-fuse would ask for. A mount with PASSTHROUGH counts as one more level of stacked file
// systems, of which the kernel allows two.
func (m *Mount) unwanted() uint64 {
	if m.conn.cfg.Passthrough() {
		return 0
	}
	return fuse.CAP_PASSTHROUGH
}

// minorOfFileattr is the protocol of Linux 5.14. Since 5.13, whose protocol is that of 5.12, the kernel itself checks the caller of
// FS_IOC_SETFLAGS (fuse_fileattr_set).
const minorOfFileattr = 34

// policy settles the policy by what the kernel offers.
func (m *Mount) policy(kernel *fuse.InitIn) Policy {
	offered := kernel.Flags64()
	keeps := !m.traits.StrictAtime && !m.traits.Changing
	p := Policy{
		Timeout:     m.conn.cfg.Timeout,
		NoOpen:      keeps && offered&fuse.CAP_NO_OPEN_SUPPORT != 0,
		NoOpendir:   keeps && offered&fuse.CAP_NO_OPENDIR_SUPPORT != 0,
		Passthrough: m.conn.cfg.Passthrough() && offered&fuse.CAP_PASSTHROUGH != 0,
		Writeback:   m.writeback,
		StrictAtime: m.traits.StrictAtime,
		Offered:     offered,
		ChecksFlags: kernel.Minor < minorOfFileattr,
	}
	// Linux 6.6 offers that flag, and drops the pages of what is written past them.
	p.DirectIO = p.NoOpen && !p.Passthrough && !p.Writeback && offered&fuse.CAP_DIRECT_IO_ALLOW_MMAP != 0 &&
		!m.conn.cfg.NoDirectIO
	switch {
	case m.traits.Changing:
		p.Timeout = 0
	case p.Timeout < 0:
		p.Timeout = Endless
	}
	return p
}
