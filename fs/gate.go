package fs

import (
	"sync/atomic"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// gate lets requests that may change the upper pass, or refuses them. It refuses them on a mount
// that has handed its upper over. It also does on a mount that has the upper for reading only,
// because mount(8) can remount that one as writable in the kernel.
type gate struct {
	errno   atomic.Int32 // what such requests are refused with; 0: they pass
	running atomic.Int64 // how many have passed and are not done
}

// enter counts a request that passes; else it returns the errno to refuse it with. A request that passes calls leave in the end.
func (g *gate) enter() unix.Errno {
	g.running.Add(1)
	errno := unix.Errno(g.errno.Load())
	if errno != 0 {
		g.running.Add(-1)
	}
	return errno
}

func (g *gate) leave() { g.running.Add(-1) }

// shut refuses what comes from now on. Requests that have passed go on.
func (g *gate) shut(errno unix.Errno) { g.errno.Store(int32(errno)) }

// open takes shut back.
func (g *gate) open() { g.errno.Store(0) }

// Requests that may change the upper, by their numbers in linux/fuse.h, besides those of serve.go.
const (
	codeSymlink       = 6
	codeRename        = 12
	codeLink          = 13
	codeSetxattr      = 21
	codeRemovexattr   = 24
	codeIoctl         = 39
	codeFallocate     = 43
	codeRename2       = 45
	codeCopyFileRange = 47
	codeTmpfile       = 51
	codeCopyRange64   = 53
)

// mayChange reports whether a request may change the upper.
func mayChange(h *fuse.InHeader, in []byte) bool {
	switch h.Opcode {
	case codeSetattr, codeSymlink, codeMknod, codeMkdir, codeUnlink, codeRmdir, codeRename, codeLink, codeWrite, codeSetxattr,
		codeRemovexattr, codeCreate, codeFallocate, codeRename2, codeCopyFileRange, codeTmpfile, codeCopyRange64:
		return true
	case codeOpen: // with passthrough the copy-up comes at open
		a := argument[fuse.OpenIn](in)
		return a != nil && (a.Flags&unix.O_ACCMODE != unix.O_RDONLY || a.Flags&unix.O_TRUNC != 0)
	case codeIoctl:
		a := argument[fuse.IoctlIn](in)
		return a != nil && (a.Cmd == fsIocSetFlags || a.Cmd == fsIocFssetxattr)
	}
	return false
}
