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
}

// endless is as good as no timeout: 68 years.
const endless = math.MaxInt32 * time.Second

// capabilities are the INIT flags that are asked for besides go-fuse's own choice. A kernel without one does it in its
// older way, and so does the policy:
//
//	WRITEBACK_CACHE    small writes are collected in the page cache
//	NO_OPENDIR_SUPPORT no OPENDIR and RELEASEDIR; the kernel keeps listings
//	HANDLE_KILLPRIV_V2 no GETXATTR of security.capability before a write
//	SETXATTR_EXT       tells when an ACL takes sgid away
//	DONT_MASK          the umask comes along: a default ACL takes its place
//	IOCTL_DIR          lsattr and chattr of directories
func (o *Overlay) capabilities() uint64 {
	caps := uint64(fuse.CAP_NO_OPENDIR_SUPPORT | fuse.CAP_HANDLE_KILLPRIV_V2 | fuse.CAP_SETXATTR_EXT |
		fuse.CAP_DONT_MASK | fuse.CAP_IOCTL_DIR)
	if o.cfg.Writeback && o.stack.Writable() {
		caps |= fuse.CAP_WRITEBACK_CACHE
	}
	return caps
}

// Init settles the policy by what the kernel offers.
func (o *Overlay) Init(s *fuse.Server) {
	o.server = s
	offered := s.KernelSettings().Flags64()
	o.policy = policy{
		timeout:   o.cfg.Timeout,
		noOpen:    offered&fuse.CAP_NO_OPEN_SUPPORT != 0,
		noOpendir: offered&fuse.CAP_NO_OPENDIR_SUPPORT != 0,
	}
	if o.policy.timeout < 0 {
		o.policy.timeout = endless
	}
}
