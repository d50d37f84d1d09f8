package fs

import (
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/fs/stack"
	"github.com/fuse-overlay/fuse-overlay/internal/lock"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// openChanging answers OPEN where layers change, but for passthrough. The object stays open until
// RELEASE, so a process that has it open still reads it when the name leads elsewhere.
//
// A file that is open for writing is written past the page cache, as with passthrough, because
// there is no writeback cache (docs/design/mapped-append.md). Kernels on which that is not safe
// lose nothing through the page cache. A file of a lower that reports size 0
// is read past the page cache too: the kernel reads up to the size it knows, and files of proc and
// cgroup2 have data nevertheless.
func (o *Overlay) openChanging(n *Node, flags uint32, out *fuse.OpenOut) error {
	*out = fuse.OpenOut{OpenFlags: o.pagesOf(n)}
	h, err := o.file(n, forReading)
	switch err {
	case nil:
	case unix.ESTALE: // the kernel looks the name up again (do_filp_open)
		return err
	default:
		return nil // READ returns the error
	}
	switch {
	case flags&unix.O_ACCMODE != unix.O_RDONLY:
		if o.policy.DirectIOSafe {
			n.flags.set(flagDirectIO)
			out.OpenFlags, out.Fh = out.OpenFlags|fuse.FOPEN_DIRECT_IO, directHandle
		}
	case !n.inUpper():
		var st sys.Stat
		if err := h.Value.file.Ref().Stat(&st); err == nil && st.Size == 0 {
			out.OpenFlags, out.Fh = out.OpenFlags|fuse.FOPEN_DIRECT_IO, directHandle
		}
	}
	out.Fh |= o.pins.add(h, o.handles.Release)
	return nil
}

// pagesOf returns whether the kernel may keep its pages of n over this open, as flags of OPEN.
func (o *Overlay) pagesOf(n *Node) uint32 {
	if !o.cfg.LayersChange || o.policy.StrictAtime {
		return o.keepCache()
	}
	var now version
	h, err := o.file(n, forReading)
	if err == nil {
		var st sys.Stat
		if err = h.Value.file.Ref().Stat(&st); err == nil {
			now = versionOf(&st, time.Now())
		}
		o.handles.Release(h)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	rare := n.setRareLocked()
	same := now != version{} && now == rare.pages
	if rare.pages = now; same {
		return fuse.FOPEN_KEEP_CACHE
	}
	return 0
}

// version distinguishes one state of a file's data from another.
type version struct {
	part         stack.Part
	size         int64
	mtime, ctime unix.Timespec
}

// Steps of the times that file systems keep. Those of Linux are a tick of at most 10 ms, those of
// some formats and servers whole seconds.
const (
	fineStep   = 20 * time.Millisecond
	coarseStep = 2 * time.Second
)

// versionOf returns the version of a file. It is zero, which equals no state, if the file may be
// changed once more with the same times.
func versionOf(st *sys.Stat, now time.Time) version {
	step := fineStep
	if st.Ctim.Nsec == 0 && st.Mtim.Nsec == 0 {
		step = coarseStep
	}
	if age := now.Sub(time.Unix(st.Ctim.Unix())); age < step {
		return version{}
	}
	return version{stack.Part{Dev: st.Dev, Ino: st.Ino}, st.Size, st.Mtim, st.Ctim}
}

// pins keeps the files open that are open in the mount, up to a bound.
type pins struct {
	maxHeld int // immutable

	mu   lock.Mutex[lock.Leaf] // guards the rest
	last uint64
	held map[uint64]*held
}

// add keeps h, which is in use, until remove. It returns a handle for the kernel, in which the bit
// of directHandle is free. Beyond the bound it calls release and returns 0.
func (p *pins) add(h *held, release func(*held)) (fh uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.held) >= p.maxHeld {
		release(h)
		return 0
	}
	if p.held == nil {
		p.held = map[uint64]*held{}
	}
	p.last += directHandle << 1
	p.held[p.last] = h
	return p.last
}

// remove returns the file that fh keeps open; nil: none.
func (p *pins) remove(fh uint64) *held {
	fh &^= directHandle
	p.mu.Lock()
	defer p.mu.Unlock()
	h := p.held[fh]
	delete(p.held, fh)
	return h
}
