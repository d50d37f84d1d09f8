package fs

import "github.com/hanwen/go-fuse/v2/fuse"

// Open answers OPEN: without passthrough by ENOSYS, where the kernel then opens by itself and keeps its pages
// (FUSE_NO_OPEN_SUPPORT).
func (o *Overlay) Open(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	switch {
	case o.policy.Passthrough:
		n, err := o.node(in.NodeId)
		if err == nil {
			err = o.mayOpen(n, in.Flags)
		}
		if err == nil {
			err = o.answerOpen(n, in.NodeId, in.Flags, killer(&in.InHeader, in.Mode&fuse.OPEN_KILL_SUIDGID), false, out)
		}
		return o.status("open", err)
	case o.cfg.LayersChange:
		n, err := o.node(in.NodeId)
		if err == nil {
			err = o.mayOpen(n, in.Flags)
		}
		if err == nil {
			err = o.openAnew(n, in.Flags, out)
		}
		return o.status("open", err)
	case o.policy.NoOpen:
		return fuse.ENOSYS
	}
	n, err := o.node(in.NodeId)
	if err == nil {
		err = o.mayOpen(n, in.Flags)
	}
	out.OpenFlags = o.keepCache()
	return o.status("open", err)
}

// Release answers RELEASE. Without passthrough an open file is not known here.
func (o *Overlay) Release(_ <-chan struct{}, in *fuse.ReleaseIn) {
	if o.policy.Passthrough {
		o.closed(in.NodeId)
	}
	if h := o.pins.remove(in.Fh); h != nil {
		o.handles.Release(h)
	}
}

// Flush answers FLUSH with ENOSYS: the kernel writes its pages back at close and asks no more.
func (o *Overlay) Flush(<-chan struct{}, *fuse.FlushIn) fuse.Status {
	return fuse.ENOSYS
}

// Access answers ACCESS, which the kernel does not ask under default_permissions.
func (o *Overlay) Access(<-chan struct{}, *fuse.AccessIn) fuse.Status {
	return fuse.ENOSYS
}

// keepCache is FOPEN_KEEP_CACHE, unless each reading is to be seen.
func (o *Overlay) keepCache() uint32 {
	if o.policy.StrictAtime {
		return 0
	}
	return fuse.FOPEN_KEEP_CACHE
}

// createOpen answers CREATE where OPEN is answered.
func (o *Overlay) createOpen(in *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	n, status := o.makeFile(in, name, &out.EntryOut)
	if status != fuse.OK {
		return status
	}
	return o.openMade(n, in.Flags, out)
}
