package conn

import (
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/fuse-overlay/fuse-overlay/fs/conn/features"
	"github.com/fuse-overlay/fuse-overlay/fs/conn/lossprobe"
)

// Policy is what the kernel caches and does by itself. INIT decides it, once for each mount.
type Policy struct {
	// Timeout is how long the kernel keeps names and attributes.
	Timeout time.Duration
	// NoOpen: the reply to OPEN is ENOSYS, and the kernel opens files by itself.
	NoOpen bool
	// NoOpendir: the reply to OPENDIR is ENOSYS, and the kernel keeps listings.
	NoOpendir bool
	// DirectIO: CREATE is served although OPEN is not, and may reply with FOPEN_DIRECT_IO.
	DirectIO bool
	// DirectIOSafe: the reply to OPEN may be FOPEN_DIRECT_IO for files that others map.
	DirectIOSafe bool
	// Passthrough: OPEN is served, with a backing file if the kernel takes the file of the layer.
	Passthrough bool
	// Writeback: the kernel collects writes in its page cache.
	Writeback bool
	// StrictAtime: each read counts for the access time. OPEN is served, and drops the pages.
	StrictAtime bool
	// ChecksFlags: the daemon checks the right to change inode flags, because the kernel does not.
	ChecksFlags bool
	// Offered are the flags of INIT that the kernel has.
	Offered uint64

	writeback writebackChoice
}

// Endless is as good as no timeout: 68 years.
const Endless = math.MaxInt32 * time.Second

// String returns the I/O policy for the log.
func (p *Policy) String() string {
	words := []string{"cached"}
	if p.Passthrough {
		words[0] = "passthrough"
	}
	if text := p.writeback.String(); text != "" {
		words = append(words, text)
	}
	if p.DirectIO {
		words = append(words, "direct I/O for new files")
	}
	if p.Timeout < Endless {
		words = append(words, fmt.Sprintf("timeout=%v", p.Timeout.Seconds()))
	}
	return strings.Join(words, ", ")
}

// Missing returns the features that this kernel does not have, by their names in linux/fuse.h.
func (p *Policy) Missing() []string { return features.Missing(p.Offered) }

// capabilities are the INIT flags that the daemon requests in addition to those of go-fuse. If the
// kernel lacks one, the policy is the older one:
//
//	WRITEBACK_CACHE      the page cache collects small writes
//	NO_OPENDIR_SUPPORT   no OPENDIR and RELEASEDIR; the kernel keeps listings
//	HANDLE_KILLPRIV_V2   no GETXATTR of security.capability before a write
//	SETXATTR_EXT         SETXATTR has a flag if an ACL takes sgid away
//	DONT_MASK            requests contain the umask, which a default ACL replaces
//	IOCTL_DIR            lsattr and chattr of directories
//	DIRECT_IO_ALLOW_MMAP a process can map a file that it writes by direct I/O
//	ATOMIC_O_TRUNC       with passthrough: OPEN contains O_TRUNC, so the copy-up has no data
//
// go-fuse requests PASSTHROUGH itself; unwantedCapabilities takes it away.
func (m *Mount) capabilities() uint64 {
	caps := uint64(fuse.CAP_NO_OPENDIR_SUPPORT | fuse.CAP_HANDLE_KILLPRIV_V2 | fuse.CAP_SETXATTR_EXT |
		fuse.CAP_DONT_MASK | fuse.CAP_IOCTL_DIR | fuse.CAP_DIRECT_IO_ALLOW_MMAP)
	if m.writeback.on {
		caps |= fuse.CAP_WRITEBACK_CACHE
	}
	if m.conn.cfg.Passthrough() {
		caps |= fuse.CAP_ATOMIC_O_TRUNC
	}
	return caps
}

// unwantedCapabilities are the INIT flags that go-fuse would request. A mount with PASSTHROUGH
// counts as one more level of stacked file systems, of which the kernel allows two.
func (m *Mount) unwantedCapabilities() uint64 {
	if m.conn.cfg.Passthrough() {
		return 0
	}
	return fuse.CAP_PASSTHROUGH
}

// writebackChoice is whether the kernel collects writes, and why.
type writebackChoice struct {
	on     bool
	reason string // empty: the option decides, or there is nothing to write
}

// String is the choice as a value of option writeback, for the log; empty: off and not worth a
// word.
func (w writebackChoice) String() string {
	value := "writeback=0"
	if w.on {
		value = "writeback=1"
	}
	switch {
	case w.reason != "":
		return value + ": " + w.reason
	case w.on:
		return value
	}
	return ""
}

// lossReasons are the reasons of writeback=auto, by the result of the probe.
var lossReasons = map[lossprobe.Result]string{
	lossprobe.Found: "this kernel loses data appended to mapped files without it",
	lossprobe.None:  "this kernel does not lose data appended to mapped files",
	lossprobe.Unknown: "whether this kernel loses data appended to mapped files without it " +
		"could not be found out",
}

// chooseWriteback decides whether the kernel collects writes. Without an option it does so only
// where data would be lost otherwise: the kernel then forgets st_blocks at each close, so each
// open, fstat and close of a cached tree costs a GETATTR. Without a result of the probe, data
// counts as lost.
func (c *Conn) chooseWriteback(t Traits) writebackChoice {
	option := c.cfg.Writeback
	switch {
	case !t.Writable || c.cfg.Passthrough():
		return writebackChoice{}
	case t.Changing && option == WritebackOn:
		return writebackChoice{reason: "layers may change (timeout=0), and with writeback=1 the kernel ignores their sizes"}
	case t.Changing:
		return writebackChoice{}
	case option == WritebackOn:
		return writebackChoice{on: true}
	}
	loss := lossprobe.Unknown
	if c.cfg.Loss != nil {
		loss = c.cfg.Loss()
	}
	if option == WritebackAuto {
		return writebackChoice{on: loss != lossprobe.None, reason: lossReasons[loss]}
	}
	if loss == lossprobe.Found {
		c.log.Warn("writeback=0: with this kernel, data that is appended to a file while its last page is dirty " +
			"by a shared mapping is lost")
	}
	return writebackChoice{}
}

// oldestMinor is the protocol of Linux 4.9, the first whose kernel checks POSIX ACLs. Before, a
// process could open a file that the file's ACL refuses it.
const oldestMinor = 26

// checkProtocol returns an error if the kernel is too old to be served.
func checkProtocol(kernel *fuse.InitIn) error {
	if kernel.Major > 7 || kernel.Minor >= oldestMinor {
		return nil
	}
	return fmt.Errorf("this kernel is too old: its FUSE protocol is %d.%d, which does not check POSIX ACLs; "+
		"Linux 4.9 has 7.%d", kernel.Major, kernel.Minor, oldestMinor)
}

// minorOfFileattr is the protocol of Linux 5.14. Since 5.13, whose protocol is that of 5.12, the
// kernel itself checks the caller of FS_IOC_SETFLAGS (fuse_fileattr_set).
const minorOfFileattr = 34

// policy decides the policy by what the kernel offers.
func (m *Mount) policy(kernel *fuse.InitIn) Policy {
	offered := kernel.Flags64()
	keeps := !m.traits.StrictAtime && !m.traits.Changing
	p := Policy{
		Timeout:     m.conn.cfg.Timeout,
		NoOpen:      keeps && offered&fuse.CAP_NO_OPEN_SUPPORT != 0,
		NoOpendir:   keeps && offered&fuse.CAP_NO_OPENDIR_SUPPORT != 0,
		Passthrough: m.conn.cfg.Passthrough() && offered&fuse.CAP_PASSTHROUGH != 0,
		Writeback:   m.writeback.on,
		StrictAtime: m.traits.StrictAtime,
		ChecksFlags: kernel.Minor < minorOfFileattr,
		Offered:     offered,
		writeback:   m.writeback,

		DirectIOSafe: features.DirectIO(offered, kernel.Minor),
	}
	p.DirectIO = m.traits.Writable && p.NoOpen && !p.Passthrough && !p.Writeback && p.DirectIOSafe && !m.conn.cfg.NoDirectIO
	switch {
	case m.traits.Changing:
		p.Timeout = 0
	case p.Timeout < 0:
		p.Timeout = Endless
	}
	return p
}
