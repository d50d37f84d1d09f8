package fs

import (
	"errors"
	"fmt"
	"sync"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/fs/stack"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// backer is the part of [fuse.Server] that hands files to the kernel for passthrough.
type backer interface {
	RegisterBackingFd(*fuse.BackingMap) (int32, syscall.Errno)
	UnregisterBackingFd(id int32) syscall.Errno
}

// opens knows what is open of each file, where OPEN is answered. The kernel wants all opens of a file to be of one kind,
// through the mount's page cache or through one backing file, and makes EIO of anything else (fs/fuse/iomode.c). A file is
// counted before the kernel hears that it is open, and until the kernel says that it is closed; so what the kernel takes
// for open is never more than what is counted.
type opens struct {
	mu     sync.Mutex // guards the rest
	byNode map[uint64]opened
}

// opened is what is open of one file.
type opened struct {
	count   int
	backing int32 // the id of the backing file; throughCache: none
}

const (
	throughCache = 0
	undecided    = -1
)

// add counts one open more and returns the backing of all opens of the file: that of those before, or offered for the
// first. With undecided offered, a first open is not counted, and ok is false.
func (t *opens) add(id uint64, offered int32) (backing int32, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	e, found := t.byNode[id]
	if !found {
		if offered == undecided {
			return 0, false
		}
		e.backing = offered
	}
	e.count++
	t.byNode[id] = e
	return e.backing, true
}

// remove counts one open less. After the last, which calls last, the backing is to be closed.
func (t *opens) remove(id uint64, last func()) (closed int32) {
	t.mu.Lock()
	defer t.mu.Unlock()
	e, found := t.byNode[id]
	switch {
	case !found:
		return throughCache
	case e.count > 1:
		e.count--
		t.byNode[id] = e
		return throughCache
	}
	delete(t.byNode, id)
	last()
	return e.backing
}

// answerOpen opens n: a file of the upper by passthrough, others through the page cache, because a copy-up would change the
// backing under those who have it open. What is opened for writing is therefore copied up first. fresh: the kernel does
// not know n yet.
func (o *Overlay) answerOpen(n *Node, flags uint32, killSuid, fresh bool, out *fuse.OpenOut) error {
	writes := flags&unix.O_ACCMODE != unix.O_RDONLY
	var err error
	switch {
	case flags&unix.O_TRUNC != 0 && !fresh: // FUSE_ATOMIC_O_TRUNC: no SETATTR follows
		err = o.truncate(n, 0, killSuid)
	case writes:
		err = o.copyUp(n, wholeFile)
	}
	if err != nil {
		return err
	}
	backing, joined := o.opens.add(n.ID(), undecided)
	if !joined {
		if writes { // before its mode is looked at, so that no chmod slips in between
			n.flags.Or(unseenWrites)
		}
		id := o.register(n)
		if backing, _ = o.opens.add(n.ID(), id); backing != id && id != throughCache {
			o.unregister(id) // somebody else was first
		}
	}
	if backing == throughCache {
		*out = fuse.OpenOut{OpenFlags: fuse.FOPEN_KEEP_CACHE}
		return nil
	}
	// Without FOPEN_KEEP_CACHE the kernel drops what the page cache of the mount holds of the file, and with passthrough
	// nothing comes in again: a later open through the cache finds no stale pages.
	*out = fuse.OpenOut{OpenFlags: fuse.FOPEN_PASSTHROUGH, BackingID: backing}
	if writes && n.expectUnseen(flags) && !fresh {
		o.forgetAttr(n)
	}
	return nil
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

// closed counts one open less of a file.
func (o *Overlay) closed(id uint64) {
	n, _ := o.nodes.Get(id)
	backing := o.opens.remove(id, func() {
		if n != nil {
			n.flags.And(^uint32(unseenWrites))
		}
	})
	if backing != throughCache {
		o.unregister(backing)
	}
}

// register hands n's file to the kernel as a backing; throughCache where it is not to be or cannot be.
func (o *Overlay) register(n *Node) int32 {
	if p := n.place(); o.stack.Writable() && (p.layer != stack.Upper || p.data != nil) {
		return throughCache
	}
	h, err := o.file(n, useRead)
	if err != nil {
		return throughCache // the error is told at read
	}
	defer o.handles.Release(h)
	if o.stack.Writable() {
		var st sys.Stat
		if err := o.stack.Shown(stack.Upper, h.Value.file.Ref()).Stat(&st); err != nil || dropsPrivileges(st.Mode) {
			return throughCache // passthrough would drop them as well for who may keep them: the daemon writes
		}
	}
	id, err := o.back(h.Value.file)
	if err != nil {
		o.refusal.Do(func() {
			o.log.Warn("files of a layer are read through the page cache: no passthrough", zap.Error(err))
		})
		return throughCache
	}
	return id
}

func (o *Overlay) back(f *sys.File) (id int32, err error) {
	err = f.Back(func(fd int32) (errno unix.Errno) {
		id, errno = o.backer.RegisterBackingFd(&fuse.BackingMap{Fd: fd})
		return errno
	})
	return id, err
}

func (o *Overlay) unregister(id int32) {
	if errno := o.backer.UnregisterBackingFd(id); errno != 0 {
		o.log.Error("cannot close a backing file", zap.Error(errno))
	}
}

// createOpen answers CREATE where OPEN is answered.
func (o *Overlay) createOpen(in *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	obj := &stack.Object{Mode: unix.S_IFREG | in.Mode&0o7777, Umask: in.Umask}
	if status := o.make(&in.InHeader, name, &out.EntryOut, obj); status != fuse.OK {
		return status
	}
	n, err := o.node(out.NodeId)
	if err != nil {
		return o.status("create", err)
	}
	if err := o.answerOpen(n, in.Flags, false, true, &out.OpenOut); err != nil {
		o.forgetOne(n)
		return o.status("create", err)
	}
	out.SetAttrTimeout(o.attrTimeout(n, out.Attr.Mode))
	return fuse.OK
}

// Reasons why there is no passthrough.
var (
	errNoPassthrough = errors.New("io=passthrough: this kernel has no FUSE passthrough (Linux 6.9 has, with CONFIG_FUSE_PASSTHROUGH)")
	errNotAllowed    = errors.New("io=passthrough: only root of the first user namespace may (CAP_SYS_ADMIN)")
	errStacked       = errors.New("io=passthrough: the file system of the upperdir is itself stacked on another")
)

// checkPassthrough tries whether the kernel takes a file of the upper. Precondition: mounted.
func (o *Overlay) checkPassthrough() error {
	if !o.policy.passthrough {
		return errNoPassthrough
	}
	f, err := o.stack.Sample()
	if err != nil {
		return fmt.Errorf("io=passthrough: cannot be tried: %w", err)
	}
	defer f.Close()
	id, err := o.back(f)
	switch err {
	case nil:
		o.unregister(id)
		return nil
	case unix.EPERM:
		return errNotAllowed
	case unix.ELOOP:
		return errStacked
	}
	return fmt.Errorf("io=passthrough: the kernel refuses a file of the upperdir: %w", err)
}
