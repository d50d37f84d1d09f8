package fs

import (
	"errors"
	"fmt"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/copyup"
	"github.com/fuse-overlay/fuse-overlay/fs/stack"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// backer is the part of [fuse.Server] that hands files to the kernel for passthrough.
type backer interface {
	RegisterBackingFd(*fuse.BackingMap) (int32, syscall.Errno)
	UnregisterBackingFd(id int32) syscall.Errno
}

// answerOpen opens n, which the kernel knows as the inode id: by passthrough where that can be, else through the page cache. What
// is opened for writing is copied up first. fresh: the kernel does not know n yet. ESTALE has the kernel look the name up again
// and open the inode that it finds then (do_filp_open), see [Overlay.part].
func (o *Overlay) answerOpen(n *Node, id uint64, flags uint32, killer *fuse.InHeader, fresh bool, out *fuse.OpenOut) error {
	writes := flags&unix.O_ACCMODE != unix.O_RDONLY
	if !fresh && (writes || flags&unix.O_TRUNC != 0) {
		if err := o.openChanged(n, id, flags, killer); err != nil {
			return err
		}
	}
	b, counted, err := o.opens.add(n, id, nil)
	for !counted && err == nil {
		if writes { // before its mode is looked at, so that no chmod slips in between
			n.flags.Or(unseenWrites)
		}
		mine := o.register(n)
		if b, counted, err = o.opens.add(n, id, &mine); b != mine { // somebody else was first
			o.unregister(mine)
		}
	}
	if err != nil {
		return err
	}
	switch {
	case b.id == throughCache && writes:
		// The writeback cache is not there with passthrough, and without it some kernels lose what is appended to mapped files
		// through the page cache (docs/design/mapped-append.md).
		n.flags.Or(direct)
		*out = fuse.OpenOut{OpenFlags: fuse.FOPEN_DIRECT_IO | o.pagesOf(n), Fh: directHandle}
		return nil
	case b.id == throughCache:
		*out = fuse.OpenOut{OpenFlags: o.pagesOf(n)}
		return nil
	}
	// Without FOPEN_KEEP_CACHE the kernel drops what the page cache of the mount holds of the file, and with passthrough
	// nothing comes in again: a later open through the cache finds no stale pages.
	*out = fuse.OpenOut{OpenFlags: fuse.FOPEN_PASSTHROUGH, BackingID: b.id}
	if writes && n.expectUnseen(flags) && !fresh {
		o.forgetAttr(n)
	}
	return nil
}

// openChanged makes n ready for who opens it to change its data, as the inode id.
func (o *Overlay) openChanged(n *Node, id uint64, flags uint32, killer *fuse.InHeader) error {
	cut, amount := flags&unix.O_TRUNC != 0, wholeFile
	if cut && !o.opens.readsLower(id) { // else this open will fail, and must not have cut anything off
		amount = copyup.First(0)
	}
	// First, so that the kernel, which tries once more only, finds no file of a lower then, even if it has forgotten n meanwhile.
	if err := o.copyUp(n, amount); err != nil {
		return err
	}
	if o.part(n); id != n.ID() {
		return unix.ESTALE
	}
	if cut { // FUSE_ATOMIC_O_TRUNC: no SETATTR follows
		return o.cutOff(n, killer)
	}
	return nil
}

// cutOff truncates n for an open with O_TRUNC. The kernel drops the pages of a mapping after the answer alone: what it writes back of
// them before would make the file as long as it was, so it is not stored, and the pages are dropped before the answer.
func (o *Overlay) cutOff(n *Node, killer *fuse.InHeader) error {
	err := o.truncate(n, 0, killer)
	if err != nil || n.flags.Load()&direct == 0 {
		return err
	}
	o.growing.begin(n, growth{shown: true})
	defer o.growing.end(n)
	err = o.truncate(n, 0, killer) // of what was stored since
	o.dropPages(n, 0, 0)
	return err
}

// part parts n, whose data is about to change, from those who have the file of a lower open in its place: the kernel takes one
// backing for an inode at a time, so n becomes another inode to it. The former one leads to n as well, but in what is read
// through it, and is gone with those who have it open. Precondition: n is in the upper.
func (o *Overlay) part(n *Node) {
	if !o.policy.Passthrough {
		return
	}
	if former, done := o.opens.part(n, o.nodes.Renew); done && o.server != nil {
		o.server.InodeNotify(former, -1, 0) // what it remembers of the attributes, see attrTimeout
	}
}

// readable returns what is read through the inode id of n, to be released.
func (o *Overlay) readable(n *Node, id uint64) (*held, error) {
	if id != n.ID() {
		if h := o.opens.lower(id, o.handles.Share); h != nil {
			return h, nil
		}
	}
	return o.file(n, useRead)
}

// expectUnseen notes what of n's attributes the kernel will not see changing, and reports whether that is new: then it may
// remember such.
func (n *Node) expectUnseen(flags uint32) bool {
	bits := uint32(unseenWrites)
	if flags&unix.O_ACCMODE == unix.O_RDWR {
		bits |= unseenMappings
	}
	return n.flags.Or(bits)&bits != bits
}

// closed counts one open less of the inode id.
func (o *Overlay) closed(id uint64) {
	n, _ := o.nodes.Get(id)
	o.unregister(o.opens.remove(id, func() {
		if n != nil && n.ID() == id { // by a former one nobody writes
			n.flags.And(^uint32(unseenWrites))
		}
	}))
}

// register hands n's file to the kernel as a backing; throughCache where it is not to be or cannot be.
func (o *Overlay) register(n *Node) (b backing) {
	p := n.place()
	writable := o.stack.Writable()
	ofLower := writable && p.layer != stack.Upper
	if writable && p.data != nil || ofLower && !o.mayPassLower(n) {
		return b
	}
	h, err := o.file(n, useRead)
	if err != nil {
		return b // the error is told at read
	}
	defer func() {
		if b.lower == nil {
			o.handles.Release(h)
		}
	}()
	if writable && !ofLower && !o.mayPassUpper(n, h.Value.file) {
		return b
	}
	id, err := o.back(h.Value.file)
	if err != nil {
		o.refusal.Do(func() {
			o.log.Warn("files of a layer are read through the page cache: no passthrough", zap.Error(err))
		})
		return b
	}
	if b.id = id; ofLower {
		b.lower = h
	}
	return b
}

// mayPassLower reports whether n, which lies in a lower and may be copied up, is one for passthrough. Who has it open is parted
// from who writes it, in what is read and in locks on the file; so it is large, since locks are taken on small files.
func (o *Overlay) mayPassLower(n *Node) bool {
	return n.flags.Load()&large != 0 && !n.inUpper() && !o.opens.full()
}

// mayPassUpper reports whether a file of the upper is one for passthrough: that would drop suid and sgid at a write also for who
// may keep them, so the daemon writes files that have such bits. It also writes append-only files:
// a process may remove O_APPEND after the open (F_SETFL), and only WRITE contains the current
// flags.
func (o *Overlay) mayPassUpper(n *Node, f *sys.File) bool {
	if protection, err := o.protection(n); err != nil || protection&appendOnly != 0 {
		return false
	}
	var st sys.Stat
	err := o.stack.Shown(stack.Upper, f.Ref()).Stat(&st)
	return err == nil && !dropsPrivileges(st.Mode)
}

func (o *Overlay) back(f *sys.File) (id int32, err error) {
	err = f.Back(func(fd int32) (errno unix.Errno) {
		id, errno = o.backer.RegisterBackingFd(&fuse.BackingMap{Fd: fd})
		return errno
	})
	return id, err
}

// unregister closes a backing.
func (o *Overlay) unregister(b backing) {
	if b.lower != nil {
		o.handles.Release(b.lower)
	}
	if b.id != throughCache {
		o.unback(b.id)
	}
}

func (o *Overlay) unback(id int32) {
	if errno := o.backer.UnregisterBackingFd(id); errno != 0 {
		o.log.Error("cannot close a backing file", zap.Error(errno))
	}
}

// Reasons why there is no passthrough.
var (
	errNoPassthrough = errors.New("io=passthrough: this kernel has no FUSE passthrough (Linux 6.9 has, with CONFIG_FUSE_PASSTHROUGH)")
	errNotAllowed    = errors.New("io=passthrough: only root of the first user namespace may (CAP_SYS_ADMIN)")
	errStacked       = errors.New("io=passthrough: the file system of the upperdir is itself stacked on another")
)

// checkPassthrough tries whether the kernel takes a file of the upper. Precondition: mounted.
func (o *Overlay) checkPassthrough() error {
	if !o.policy.Passthrough {
		return errNoPassthrough
	}
	f, err := o.stack.ProbeFile()
	if err != nil {
		return fmt.Errorf("io=passthrough: cannot be tried: %w", err)
	}
	defer f.Close()
	id, err := o.back(f)
	switch err {
	case nil:
		o.unback(id)
		return nil
	case unix.EPERM:
		return errNotAllowed
	case unix.ELOOP:
		return errStacked
	}
	return fmt.Errorf("io=passthrough: the kernel refuses a file of the upperdir: %w", err)
}
