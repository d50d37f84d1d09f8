package fs

import (
	"slices"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/fs/stack"
	"github.com/fuse-overlay/fuse-overlay/internal/host"
	"github.com/fuse-overlay/fuse-overlay/internal/owner"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// killer returns the caller of a request if flag means that it may not keep suid and sgid; else
// nil.
func killer(caller *fuse.InHeader, flag uint32) *fuse.InHeader {
	if flag == 0 {
		return nil
	}
	return caller
}

// killSuid clears suid and sgid as a write by a caller that may not keep them does
// (FUSE_HANDLE_KILLPRIV_V2). The layer's file system removes file capabilities at the write itself.
func (o *Overlay) killSuid(n *Node, caller *fuse.InHeader) error {
	killed, err := o.killSuidBits(n, caller)
	if killed {
		o.kernel.dropAttr(n.ID())
	}
	return err
}

// killSuidBits clears suid. It clears sgid if the group may execute the file, or if the caller is
// not in the group, as setattr_should_drop_sgid does since Linux 6.2. The description of
// FUSE_HANDLE_KILLPRIV_V2 is older.
func (o *Overlay) killSuidBits(n *Node, caller *fuse.InHeader) (killed bool, err error) {
	n.upMu.Lock()
	defer n.upMu.Unlock()
	err = o.with(n, func(r owner.Ref) error {
		var st sys.Stat
		if err := r.Stat(&st); err != nil {
			return err
		}
		mode := st.Mode &^ unix.S_ISUID
		if mode&unix.S_ISGID != 0 && (mode&unix.S_IXGRP != 0 || !isMember(caller, st.Gid)) {
			mode &^= unix.S_ISGID
		}
		if killed = mode != st.Mode; !killed {
			return nil
		}
		return r.Chmod(mode & 0o7777)
	})
	return killed, err
}

// isMember reports whether the caller is known to be in a group.
func isMember(caller *fuse.InHeader, gid uint32) bool {
	if caller.Gid == gid {
		return true
	}
	groups, err := host.GroupsOf(caller.Pid)
	return err == nil && slices.Contains(groups, gid)
}

// dropsPrivileges reports whether a write by a caller without CAP_FSETID may clear bits of mode.
func dropsPrivileges(mode uint32) bool { return mode&(unix.S_ISUID|unix.S_ISGID) != 0 }

// changeData calls f, which changes data, for the requests that do not contain whether the caller
// may keep suid and sgid. Root may. A daemon that may not has lost them in f already.
func (o *Overlay) changeData(n *Node, h *held, caller *fuse.InHeader, f func(*sys.File) error) error {
	var st sys.Stat
	if err := o.stack.Shown(stack.Upper, h.Value.file.Ref()).Stat(&st); err != nil {
		return err
	}
	err := f(h.Value.file)
	if !dropsPrivileges(st.Mode) {
		return err
	}
	if err == nil && !isRoot(caller) {
		_, err = o.killSuidBits(n, caller)
	}
	o.kernel.dropAttr(n.ID())
	return err
}

// isRoot reports whether the caller is user 0. If mounts may map IDs (FUSE_ALLOW_IDMAP), only
// requests that make an object contain the user.
func isRoot(caller *fuse.InHeader) bool {
	if caller.Uid != sys.Unchanged {
		return caller.Uid == 0
	}
	uid, err := host.UserOf(caller.Pid)
	return err == nil && uid == 0
}
