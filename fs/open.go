package fs

import "github.com/hanwen/go-fuse/v2/fuse"

// Open answers OPEN. After ENOSYS the kernel opens files by itself and keeps their pages
// (FUSE_NO_OPEN_SUPPORT).
func (o *Overlay) Open(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	if o.policy.NoOpen && !o.policy.Passthrough && !o.cfg.LayersChange {
		return fuse.ENOSYS
	}
	n, err := o.node(in.NodeId)
	if err == nil {
		err = o.guard.mayOpen(n, in.Flags)
	}
	switch {
	case err != nil:
	case o.policy.Passthrough:
		err = o.passthrough.open(n, in.NodeId, in.Flags, killer(&in.InHeader, in.Mode&fuse.OPEN_KILL_SUIDGID), out)
	case o.cfg.LayersChange:
		err = o.openChanging(n, in.Flags, out)
	default:
		out.OpenFlags = o.keepCache()
	}
	return o.status("open", err)
}

// Release answers RELEASE. Only passthrough and layers that change count what is open.
func (o *Overlay) Release(_ <-chan struct{}, in *fuse.ReleaseIn) {
	if o.policy.Passthrough {
		o.passthrough.release(in.NodeId)
	}
	if h := o.pins.remove(in.Fh); h != nil {
		o.handles.Release(h)
	}
}

// Flush answers FLUSH with ENOSYS. The kernel writes its pages back at close, and sends no further
// FLUSH.
func (o *Overlay) Flush(<-chan struct{}, *fuse.FlushIn) fuse.Status {
	return fuse.ENOSYS
}

// Access answers ACCESS, which the kernel does not send under default_permissions.
func (o *Overlay) Access(<-chan struct{}, *fuse.AccessIn) fuse.Status {
	return fuse.ENOSYS
}

// keepCache is FOPEN_KEEP_CACHE, unless each read must change the access time.
func (o *Overlay) keepCache() uint32 {
	if o.policy.StrictAtime {
		return 0
	}
	return fuse.FOPEN_KEEP_CACHE
}
