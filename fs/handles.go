package fs

import (
	"github.com/fuse-overlay/fuse-overlay/fs/stack"
	"github.com/fuse-overlay/fuse-overlay/inodecache"
	"github.com/fuse-overlay/fuse-overlay/internal/host"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// purpose is what a cached handle is open for.
type purpose uint8

const (
	forDir purpose = iota
	forReading
	forWriting
)

// handleKey names a cached handle: node, layer and purpose in one number, which a map finds
// fastest. The layer is part of it: after a copy-up a handle of the lower is never found again.
type handleKey uint64

// Widths of the parts of a handleKey. A layer's number has sixteen bits (stack), so 2^46 nodes are
// left for the life of a mount.
const (
	purposeBits = 2
	layerBits   = 16
)

func (n *Node) handleKey(layer int, u purpose) handleKey {
	return handleKey(n.Serial()<<(layerBits+purposeBits) | uint64(layer)<<purposeBits | uint64(u))
}

// handle is an opened directory or file.
type handle struct {
	dir  *sys.Dir
	file *sys.File
	data *stack.Data // file has the data of another, a metacopy
	// appends: file was opened with O_APPEND, because its inode in the upper is append-only.
	appends bool
	// remote: the layer may lie on a server that does not answer any more.
	remote bool
}

// remoteCloses has room for the closes of remote files that are under way. Each may take a thread
// for as long as its server does not answer. The others wait, with their descriptors.
var remoteCloses = make(chan struct{}, host.BackgroundCalls)

func closeHandle(h handle) {
	if h.dir != nil {
		h.dir.Close()
	}
	switch {
	case h.file == nil:
	case h.remote: // the request that needs its place in the cache must not wait for that server
		go func() {
			remoteCloses <- struct{}{}
			h.file.Close()
			<-remoteCloses
		}()
	default:
		h.file.Close()
	}
}

// keepHandle puts a handle of n into the cache and returns the cached one in use.
func (a *access) keepHandle(n *Node, layer int, u purpose, h handle) *held {
	n.flags.set(flagHasHandle)
	h.remote = u == forReading && a.stack.Remote()
	cached := a.handles.Add(n.handleKey(layer, u), h)
	if a.nodes.Dropped(n) { // meanwhile: no request will look for it again
		a.handles.Evict(n.handleKey(layer, u))
	}
	return cached
}

type held = inodecache.Held[handleKey, handle]

// evict closes the cached handles of n.
func (a *access) evict(n *Node) {
	if !n.flags.has(flagHasHandle) {
		return
	}
	if n.dir == nil {
		n.mu.Lock()
		layer := int(n.layer)
		n.mu.Unlock()
		a.handles.Evict(n.handleKey(layer, forReading))
		a.handles.Evict(n.handleKey(stack.Upper, forWriting))
		return
	}
	n.dir.mu.Lock()
	layers := n.dir.Layers()
	n.dir.mu.Unlock()
	for _, l := range layers {
		a.handles.Evict(n.handleKey(int(l), forDir))
	}
}
