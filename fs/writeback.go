package fs

import (
	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// With the writeback cache the kernel keeps st_mtime by itself. It sends the time with a SETATTR after the data, but only if the
// time has changed: a write(2) within the same tick of the clock as the creation of the file changes none. The WRITE that brings
// the data later must not change st_mtime either, or the file would show another time as soon as the kernel has forgotten it.

// writeBack stores what the kernel writes back from its cache, and keeps st_mtime as it is. It holds the lock of the node's stores
// alone: of two WRITEs to one file, neither must take the time that the other has made for the one to be kept.
func (o *Overlay) writeBack(n *Node, h *held, data []byte, off int64) (int, error) {
	l := o.growing.lock(n)
	l.Lock()
	defer l.Unlock()
	file := h.Value.file.Ref()
	var st sys.Stat
	if err := file.Stat(&st); err != nil {
		return 0, err
	}
	done, err := o.growing.storeLocked(n, h, data, off)
	if done > 0 {
		// Another user's file, which the daemon may write but not date, keeps the time of the WRITE.
		if back := file.Utimes(unix.Timespec{Nsec: unix.UTIME_OMIT}, st.Mtim); back != nil && back != unix.EPERM && back != unix.EACCES {
			return 0, back
		}
	}
	return done, err
}
