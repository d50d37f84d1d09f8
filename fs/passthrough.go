package fs

import (
	"errors"
	"fmt"
	"sync"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/copyup"
	"github.com/fuse-overlay/fuse-overlay/fs/stack"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// passthrough opens files for io=passthrough: the kernel reads and writes a file of a layer, the
// backing file, without the daemon.
//
// The kernel takes one backing file for an inode at a time. If the data of a file is about to
// change while processes read the file of a lower in its place, the node is split: it gets a second
// inode ID. The previous ID leads to the node as well, but to the data of the lower. The kernel
// forgets it when no process has that inode open any more.
type passthrough struct {
	o       *Overlay
	kernel  backer     // set by Init
	counts  openCounts // what is open
	refusal sync.Once  // the log has a line about a file that the kernel refuses
}

// backer is the part of [fuse.Server] that registers backing files.
type backer interface {
	RegisterBackingFd(*fuse.BackingMap) (int32, syscall.Errno)
	UnregisterBackingFd(id int32) syscall.Errno
}

// opensForWriting reports whether flags of open(2) allow to write.
func opensForWriting(flags uint32) bool { return flags&unix.O_ACCMODE != unix.O_RDONLY }

// open opens n, which the kernel knows as the inode id. killer is the caller if it may not keep
// suid and sgid. ESTALE has the kernel look the name up again and open the inode that it finds then
// (do_filp_open), see split.
func (t *passthrough) open(n *Node, id uint64, flags uint32, killer *fuse.InHeader, out *fuse.OpenOut) error {
	if opensForWriting(flags) || flags&unix.O_TRUNC != 0 {
		if err := t.prepareChange(n, id, flags, killer); err != nil {
			return err
		}
	}
	b, err := t.count(n, id, flags)
	if err != nil {
		return err
	}
	if t.answer(n, b, flags, out) {
		t.o.kernel.dropAttr(n.ID())
	}
	return nil
}

// openNew opens n, which CREATE or TMPFILE has made and the kernel does not know yet.
func (t *passthrough) openNew(n *Node, flags uint32, out *fuse.OpenOut) error {
	b, err := t.count(n, n.ID(), flags)
	if err == nil {
		t.answer(n, b, flags, out)
	}
	return err
}

// count counts an open of n, and registers a backing file if it is the first.
func (t *passthrough) count(n *Node, id uint64, flags uint32) (backing, error) {
	b, counted, err := t.counts.add(n, id, nil)
	for !counted && err == nil {
		if opensForWriting(flags) { // before its mode is read, so that no chmod slips in between
			n.flags.set(flagUnseenWrites)
		}
		offered := t.register(n)
		if b, counted, err = t.counts.add(n, id, &offered); b != offered { // another open was first
			t.unregister(offered)
		}
	}
	return b, err
}

// answer fills in the reply to an open. unseen: the kernel must not keep the attributes of n any
// more.
func (t *passthrough) answer(n *Node, b backing, flags uint32, out *fuse.OpenOut) (unseen bool) {
	writes := opensForWriting(flags)
	switch {
	case b.id == throughCache && writes && t.o.policy.DirectIOSafe:
		// There is no writeback cache with passthrough. Without it some kernels lose what is appended to
		// mapped files through the page cache (docs/design/mapped-append.md). Those on which direct I/O
		// is not safe are older.
		n.flags.set(flagDirectIO)
		*out = fuse.OpenOut{OpenFlags: fuse.FOPEN_DIRECT_IO | t.o.pagesOf(n), Fh: directHandle}
		return false
	case b.id == throughCache:
		*out = fuse.OpenOut{OpenFlags: t.o.pagesOf(n)}
		return false
	}
	// Without FOPEN_KEEP_CACHE the kernel drops what the page cache of the mount holds of the file,
	// and with passthrough nothing comes in again: a later open through the cache finds no stale
	// pages.
	*out = fuse.OpenOut{OpenFlags: fuse.FOPEN_PASSTHROUGH, BackingID: b.id}
	return writes && n.expectUnseen(flags)
}

// prepareChange makes n ready for an open, as the inode id, that changes its data.
func (t *passthrough) prepareChange(n *Node, id uint64, flags uint32, killer *fuse.InHeader) error {
	truncates, amount := flags&unix.O_TRUNC != 0, wholeFile
	if truncates && !t.counts.readsLower(id) { // else this open will fail, and must not have truncated anything
		amount = copyup.First(0)
	}
	// First, so that the kernel, which tries once more only, finds no file of a lower then, even if it
	// has forgotten n meanwhile.
	if err := t.o.copyUp(n, amount); err != nil {
		return err
	}
	if t.split(n); id != n.ID() {
		return unix.ESTALE
	}
	if truncates { // FUSE_ATOMIC_O_TRUNC: no SETATTR follows
		return t.o.truncateForOpen(n, killer)
	}
	return nil
}

// truncateForOpen truncates n for an open with O_TRUNC. The kernel drops the pages of a mapping
// only after the answer. What it writes back of them before would make the file as long as it was.
// So that is not stored, and the pages are dropped before the answer.
func (o *Overlay) truncateForOpen(n *Node, killer *fuse.InHeader) error {
	err := o.truncate(n, 0, killer)
	if err != nil || !n.flags.has(flagDirectIO) {
		return err
	}
	o.ranges.begin(n, rangeChange{})
	defer o.ranges.end(n)
	err = o.truncate(n, 0, killer) // of what was stored since
	o.kernel.dropPages(n.ID(), 0, 0)
	return err
}

// split splits n, whose data is about to change, if processes have the file of a lower open in its
// place. Preconditions: n is in the upper.
func (t *passthrough) split(n *Node) {
	if !t.o.policy.Passthrough {
		return
	}
	if previous, done := t.counts.split(n, t.o.nodes.Renew); done {
		t.o.kernel.dropAttr(previous) // the attributes that the kernel keeps, see attrTimeout
	}
}

// readable returns the file that is read through the inode id of n, to be released.
func (t *passthrough) readable(n *Node, id uint64) (*held, error) {
	if id != n.ID() {
		if h := t.counts.lower(id, t.o.handles.Share); h != nil {
			return h, nil
		}
	}
	return t.o.file(n, forReading)
}

// expectUnseen notes which of n's attributes the kernel will not see changing, and reports whether
// that is new.
func (n *Node) expectUnseen(flags uint32) bool {
	bits := flagUnseenWrites
	if flags&unix.O_ACCMODE == unix.O_RDWR {
		bits |= flagUnseenMappings
	}
	return n.flags.set(bits)&bits != bits
}

// release counts one open less of the inode id.
func (t *passthrough) release(id uint64) {
	n, _ := t.o.nodes.Get(id)
	t.unregister(t.counts.remove(id, func() {
		if n != nil && n.ID() == id { // no process writes by a previous ID
			n.flags.clear(flagUnseenWrites)
		}
	}))
}

// register registers n's file as a backing file. The backing is throughCache if n is not for
// passthrough, or the kernel refuses it.
func (t *passthrough) register(n *Node) (b backing) {
	p := n.place()
	writable := t.o.stack.Writable()
	ofLower := writable && p.layer != stack.Upper
	if writable && p.data != nil || ofLower && !t.mayPassLower(n) {
		return b
	}
	h, err := t.o.file(n, forReading)
	if err != nil {
		return b // READ returns the error
	}
	defer func() {
		if b.lower == nil {
			t.o.handles.Release(h)
		}
	}()
	if writable && !ofLower && !t.mayPassUpper(n, h.Value.file) {
		return b
	}
	id, err := t.registerFile(h.Value.file)
	if err != nil {
		t.refusal.Do(func() {
			t.o.log.Warn("files of a layer are read through the page cache: no passthrough", zap.Error(err))
		})
		return b
	}
	if b.id = id; ofLower {
		b.lower = h
	}
	return b
}

// mayPassLower reports whether n, which lies in a lower and may be copied up, is for passthrough.
// Once it is split, its readers share neither data nor locks with its writers. Programs take locks
// on small files, so n must be a large one.
func (t *passthrough) mayPassLower(n *Node) bool {
	return n.flags.has(flagLarge) && !n.inUpper() && !t.counts.full()
}

// mayPassUpper reports whether a file of the upper is for passthrough.
//
// The kernel would clear suid and sgid at each write, also of a caller that may keep them. So the
// daemon writes files that have such bits. It also writes append-only files: a process may remove
// O_APPEND after the open (F_SETFL), and only WRITE contains the current flags.
func (t *passthrough) mayPassUpper(n *Node, f *sys.File) bool {
	if protection, err := t.o.guard.protection(n); err != nil || protection&flagAppendOnly != 0 {
		return false
	}
	var st sys.Stat
	err := t.o.stack.Shown(stack.Upper, f.Ref()).Stat(&st)
	return err == nil && !dropsPrivileges(st.Mode)
}

func (t *passthrough) registerFile(f *sys.File) (id int32, err error) {
	err = f.Back(func(fd int32) (errno unix.Errno) {
		id, errno = t.kernel.RegisterBackingFd(&fuse.BackingMap{Fd: fd})
		return errno
	})
	return id, err
}

// unregister closes a backing.
func (t *passthrough) unregister(b backing) {
	if b.lower != nil {
		t.o.handles.Release(b.lower)
	}
	if b.id != throughCache {
		t.unregisterID(b.id)
	}
}

func (t *passthrough) unregisterID(id int32) {
	if errno := t.kernel.UnregisterBackingFd(id); errno != 0 {
		t.o.log.Error("cannot close a backing file", zap.Error(errno))
	}
}

// Reasons why there is no passthrough.
var (
	errNoPassthrough = errors.New("io=passthrough: this kernel has no FUSE passthrough " +
		"(Linux 6.9 has, with CONFIG_FUSE_PASSTHROUGH)")
	errNotAllowed = errors.New("io=passthrough: only root of the first user namespace may (CAP_SYS_ADMIN)")
	errStacked    = errors.New("io=passthrough: the file system of the upperdir is itself stacked on another")
)

// check tries whether the kernel takes a file of the upper. Preconditions: mounted.
func (t *passthrough) check() error {
	if !t.o.policy.Passthrough {
		return errNoPassthrough
	}
	f, err := t.o.stack.ProbeFile()
	if err != nil {
		return fmt.Errorf("io=passthrough: cannot be tried: %w", err)
	}
	defer f.Close()
	id, err := t.registerFile(f)
	switch err {
	case nil:
		t.unregisterID(id)
		return nil
	case unix.EPERM:
		return errNotAllowed
	case unix.ELOOP:
		return errStacked
	}
	return fmt.Errorf("io=passthrough: the kernel refuses a file of the upperdir: %w", err)
}
