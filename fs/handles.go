package fs

import (
	"github.com/fuse-overlay/fuse-overlay/fs/stack"
	"github.com/fuse-overlay/fuse-overlay/inodecache"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// use is what a cached handle is open for.
type use uint8

const (
	useDir use = iota
	useRead
	useWrite
)

// handleKey names a cached handle: node, layer and use in one number, which a map finds fastest. The layer is part of it: after a
// copy-up a handle of the lower is never found again.
type handleKey uint64

// Widths of the parts of a handleKey. A layer's number has sixteen bits (stack), so 2^46 nodes are left for the life of a mount.
const (
	useBits   = 2
	layerBits = 16
)

func (n *Node) handleKey(layer int, u use) handleKey {
	return handleKey(n.Serial()<<(layerBits+useBits) | uint64(layer)<<useBits | uint64(u))
}

// handle is an opened directory or file.
type handle struct {
	dir  *sys.Dir
	file *sys.File
	data *stack.Data // file has the data of another, a metacopy
	// appends: file was opened with O_APPEND, because its inode in the upper is append-only.
	appends bool
	// remote: it may have been opened in a layer whose server does not answer any more.
	remote bool
}

func closeHandle(h handle) {
	if h.dir != nil {
		h.dir.Close()
	}
	switch {
	case h.file == nil:
	case h.remote: // the caller that needs its place in the cache must not wait for that server
		go h.file.Close()
	default:
		h.file.Close()
	}
}

// keepHandle puts a handle of n into the cache and returns the cached one in use.
func (o *Overlay) keepHandle(n *Node, layer int, u use, h handle) *held {
	n.flags.Or(handled)
	h.remote = u == useRead && o.stack.Remote()
	kept := o.handles.Add(n.handleKey(layer, u), h)
	if o.nodes.Dropped(n) { // meanwhile: no request will look for it again
		o.handles.Evict(n.handleKey(layer, u))
	}
	return kept
}

type held = inodecache.Held[handleKey, handle]

// evict closes the cached handles of n.
func (o *Overlay) evict(n *Node) {
	if n.flags.Load()&handled == 0 {
		return
	}
	if n.dir == nil {
		n.mu.Lock()
		layer := int(n.layer)
		n.mu.Unlock()
		o.handles.Evict(n.handleKey(layer, useRead))
		o.handles.Evict(n.handleKey(stack.Upper, useWrite))
		return
	}
	n.dir.mu.Lock()
	layers := n.dir.Layers()
	n.dir.mu.Unlock()
	for _, l := range layers {
		o.handles.Evict(n.handleKey(int(l), useDir))
	}
}
