package fs

import (
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/copyup"
	"github.com/fuse-overlay/fuse-overlay/internal/owner"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// SetAttr answers SETATTR. The order is that of a plain file system's truncate, then chown (which
// clears suid and sgid), then chmod, then times.
func (o *Overlay) SetAttr(_ <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	n, err := o.node(in.NodeId)
	if err == nil {
		err = o.setAttr(n, in)
	}
	if err == nil {
		err = o.attrOut(n, out)
	}
	return o.status("setattr", err)
}

func (o *Overlay) setAttr(n *Node, in *fuse.SetAttrIn) error {
	const known = fuse.FATTR_MODE | fuse.FATTR_UID | fuse.FATTR_GID | fuse.FATTR_SIZE | fuse.FATTR_ATIME | fuse.FATTR_MTIME
	if in.Valid&known == 0 {
		return nil // the change time alone: the layer's file system keeps its own
	}
	if in.Valid&(known&^fuse.FATTR_MTIME) == 0 && o.timeIsLost(n) {
		return nil
	}
	if err := o.guard.maySetAttr(n, in); err != nil {
		return err
	}
	if size, ok := in.GetSize(); ok {
		if err := o.truncate(n, size, killer(&in.InHeader, in.Valid&fuse.FATTR_KILL_SUIDGID)); err != nil {
			return err
		}
	}
	if in.Valid&(known&^fuse.FATTR_SIZE) == 0 {
		return nil
	}
	if err := o.copyUpMetadata(n); err != nil {
		return err
	}
	n.upMu.Lock() // keeps openByChmod from putting an older mode back
	defer n.upMu.Unlock()
	return o.with(n, func(r owner.Ref) error {
		if err := chown(r, in, n.kind); err != nil {
			return err
		}
		if mode, ok := in.GetMode(); ok {
			if err := r.Chmod(mode); err != nil {
				return err
			}
		}
		if in.Valid&(fuse.FATTR_ATIME|fuse.FATTR_MTIME) == 0 {
			return nil
		}
		err := r.Utimes(timeOf(in.Valid, fuse.FATTR_ATIME, fuse.FATTR_ATIME_NOW, in.Atime, in.Atimensec),
			timeOf(in.Valid, fuse.FATTR_MTIME, fuse.FATTR_MTIME_NOW, in.Mtime, in.Mtimensec))
		if err == unix.EPERM && o.guard.touches(in.Valid) {
			return touch(r, in.Valid)
		}
		return err
	})
}

// timeIsLost reports whether no process can ever find the st_mtime that n's file has in a layer:
// the file has no name any more, and the kernel keeps the time by itself. With the writeback cache
// the kernel sends it nevertheless after each removal.
func (o *Overlay) timeIsLost(n *Node) bool {
	if !o.writesBack() || n.kind != unix.S_IFREG {
		return false
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.unlinked && !n.rareLocked().linkable
}

// touch sets the times of a file of the upper whose inode is append-only. The inode accepts only
// the present time, and only for both. If in sets the time of last change alone, touch does
// nothing: the write before has set that.
func touch(r owner.Ref, valid uint32) error {
	if valid&fuse.FATTR_ATIME_NOW == 0 {
		return nil
	}
	now := unix.Timespec{Nsec: unix.UTIME_NOW}
	return r.Utimes(now, now)
}

// chown changes owner and group. The layer's file system clears suid, and sgid of a file that its
// group may execute. chown clears sgid of any other file too if the caller is not in the group that
// it had (setattr_should_drop_sgid): the daemon itself may keep it.
func chown(r owner.Ref, in *fuse.SetAttrIn, kind uint32) error {
	uid, gid := sys.Unchanged, sys.Unchanged
	if u, ok := in.GetUID(); ok {
		uid = u
	}
	if g, ok := in.GetGID(); ok {
		gid = g
	}
	if uid == sys.Unchanged && gid == sys.Unchanged {
		return nil
	}
	if kind == unix.S_IFDIR || isRoot(&in.InHeader) {
		return r.Chown(uid, gid)
	}
	var before, after sys.Stat
	if err := r.Stat(&before); err != nil {
		return err
	}
	if err := r.Chown(uid, gid); err != nil || before.Mode&unix.S_ISGID == 0 || isMember(&in.InHeader, before.Gid) {
		return err
	}
	if err := r.Stat(&after); err != nil || after.Mode&unix.S_ISGID == 0 {
		return err
	}
	return r.Chmod(after.Mode & 0o7777 &^ unix.S_ISGID)
}

// timeOf is one of the times to set, in utimensat's terms.
func timeOf(valid, set, now uint32, sec uint64, nsec uint32) unix.Timespec {
	switch {
	case valid&now != 0:
		return unix.Timespec{Nsec: unix.UTIME_NOW}
	case valid&set != 0:
		return unix.Timespec{Sec: int64(sec), Nsec: int64(nsec)}
	}
	return unix.Timespec{Nsec: unix.UTIME_OMIT}
}

// truncate sets the size. A copy-up for it copies no more data than that. killer is the caller if
// it may not keep suid and sgid.
func (o *Overlay) truncate(n *Node, size uint64, killer *fuse.InHeader) error {
	if int64(size) < 0 {
		return unix.EFBIG
	}
	if err := o.copyUp(n, copyup.First(int64(size))); err != nil {
		return err
	}
	o.passthrough.split(n)
	h, err := o.file(n, forWriting)
	if err != nil {
		return err
	}
	defer o.handles.Release(h)
	if err := o.setSize(h.Value.file, int64(size)); err != nil {
		return err
	}
	if killer != nil {
		return o.killSuid(n, killer)
	}
	return nil
}

// setSize is ftruncate. With the writeback cache the kernel keeps st_mtime by itself, and does not
// change it for a size that the file already has. Then setSize does not either.
func (o *Overlay) setSize(file *sys.File, size int64) error {
	if o.writesBack() {
		var st sys.Stat
		if err := file.Ref().Stat(&st); err != nil || st.Size == size {
			return err
		}
	}
	return file.Truncate(size)
}
