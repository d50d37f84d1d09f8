package fs

import (
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/fs/stack"
)

// keepCache is FOPEN_KEEP_CACHE, unless each reading is to be seen.
func (o *Overlay) keepCache() uint32 {
	if o.policy.strict {
		return 0
	}
	return fuse.FOPEN_KEEP_CACHE
}

// readQuietly is a READ through a file that was opened with O_NOATIME. done is false where there is no difference, or it cannot
// be had.
func (o *Overlay) readQuietly(n *Node, in *fuse.ReadIn, buf []byte) (got int, done bool) {
	p := n.place()
	if in.Flags&unix.O_NOATIME == 0 || p.layer != stack.Upper || p.data != nil || o.cfg.AccessTimes.None() {
		return 0, false
	}
	file, there, err := o.openPlace(n, &p, unix.O_RDONLY|unix.O_NOATIME)
	if !there || err != nil {
		return 0, false
	}
	defer file.Close()
	got, err = file.Pread(buf, int64(in.Offset))
	return got, err == nil
}
