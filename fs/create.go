package fs

import (
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/fs/stack"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
	"github.com/fuse-overlay/fuse-overlay/whiteout"
)

// Create answers CREATE, or has the kernel use MKNOD and open by itself.
func (o *Overlay) Create(_ <-chan struct{}, in *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	switch {
	case o.policy.Passthrough:
		return o.createOpen(in, name, out)
	case o.policy.DirectIO:
		return o.createDirect(in, name, out)
	}
	return fuse.ENOSYS
}

// makeFile makes the file that CREATE is about.
func (o *Overlay) makeFile(in *fuse.CreateIn, name string, out *fuse.EntryOut) (*Node, fuse.Status) {
	obj := &stack.Object{Mode: unix.S_IFREG | in.Mode&0o7777, Umask: in.Umask}
	if status := o.make(&in.InHeader, name, out, obj); status != fuse.OK {
		return nil, status
	}
	n, err := o.node(out.NodeId)
	return n, o.status("create", err)
}

// Mknod answers MKNOD: files, devices, fifos and sockets.
func (o *Overlay) Mknod(_ <-chan struct{}, in *fuse.MknodIn, name string, out *fuse.EntryOut) fuse.Status {
	if whiteout.IsDevice(&sys.Stat{Mode: in.Mode, Rdev: uint64(in.Rdev)}) {
		return fuse.EPERM // it would be a whiteout
	}
	return o.make(&in.InHeader, name, out, &stack.Object{Mode: in.Mode, Umask: in.Umask, Rdev: libcDev(in.Rdev)})
}

// Mkdir answers MKDIR.
func (o *Overlay) Mkdir(_ <-chan struct{}, in *fuse.MkdirIn, name string, out *fuse.EntryOut) fuse.Status {
	return o.make(&in.InHeader, name, out, &stack.Object{Mode: unix.S_IFDIR | in.Mode&0o7777, Umask: in.Umask})
}

// Symlink answers SYMLINK.
func (o *Overlay) Symlink(_ <-chan struct{}, h *fuse.InHeader, target, name string, out *fuse.EntryOut) fuse.Status {
	return o.make(h, name, out, &stack.Object{Mode: unix.S_IFLNK | 0o777, Target: target})
}

// make makes a new object that belongs to the caller.
func (o *Overlay) make(h *fuse.InHeader, name string, out *fuse.EntryOut, obj *stack.Object) fuse.Status {
	obj.UID, obj.GID = h.Uid, h.Gid
	p, err := o.node(h.NodeId)
	if err != nil {
		return o.status("create", err)
	}
	var st sys.Stat
	n, err := o.newEntry(p, name, func(up *sys.Dir, f *stack.Found) (*Node, error) {
		file, err := o.stack.Create(&p.dir.Dir, up, name, f, obj)
		if err != nil {
			return nil, err
		}
		return o.adoptNew(p, up, name, file, &st)
	})
	if err != nil {
		return o.status("create", err)
	}
	return o.status("create", o.entry(n, &st, out))
}

// newEntry calls f to give p a new entry, with p in the upper and its mu held, where nothing shows under that name.
func (o *Overlay) newEntry(p *Node, name string, f func(*sys.Dir, *stack.Found) (*Node, error)) (*Node, error) {
	if err := o.admitsEntry(p, name); err != nil {
		return nil, err
	}
	d := o.open(p)
	defer d.release()
	var found stack.Found
	if err := o.lockEntry(p, d, name, &found); err != nil {
		return nil, err
	}
	defer p.dir.mu.Unlock()
	if found.Exists() {
		return nil, unix.EEXIST
	}
	up, err := d.upper()
	if err != nil {
		return nil, err
	}
	return f(up, &found)
}

// admitsEntry prepares p for a new entry of that name.
func (o *Overlay) admitsEntry(p *Node, name string) error {
	switch {
	case p.dir == nil:
		return unix.ENOTDIR
	case len(name) > stack.NameMax:
		return unix.ENAMETOOLONG
	case whiteout.IsMarker(name):
		return unix.EPERM // it would be a whiteout
	}
	if err := o.mayAddEntry(p); err != nil {
		return err
	}
	return o.copyUp(p, wholeFile)
}

// adoptNew makes the node of an object just made; file is closed or kept for the writes that will follow.
func (o *Overlay) adoptNew(p *Node, up *sys.Dir, name string, file *sys.File, st *sys.Stat) (*Node, error) {
	err := o.stack.Shown(stack.Upper, refTo(up, name, file)).Stat(st)
	if err != nil {
		if file != nil {
			file.Close()
		}
		return nil, err
	}
	m := meeting{name: name, keep: true, found: stack.Found{State: stack.InUpper, Layer: stack.Upper, Dirs: []uint16{stack.Upper}, Stat: *st}}
	if m.found.IsDir() {
		n := o.newNode(p, name, &m.found, nil)
		n.dir.Dir = stack.NewEmptyDir() // no other goroutine has a reference to it
		n.flags.Or(protectionKnown)     // a directory hands down other flags alone
		o.claimNumber(n)
		p.dir.children[name] = n
		return n, nil
	}
	n, err := o.meet(p, &m)
	if err != nil {
		o.unref(m.former)
		if file != nil {
			file.Close()
		}
		return nil, err
	}
	n.flags.Or(protectionKnown)
	if file == nil {
		return n, nil
	}
	if !o.cfg.LayersChange {
		n.flags.Or(bare)
	}
	o.handles.Release(o.keepHandle(n, stack.Upper, useWrite, handle{file: file}))
	return n, nil
}

// openMade fills in how a new file is open for the process that has made it.
func (o *Overlay) openMade(n *Node, flags uint32, out *fuse.CreateOut) fuse.Status {
	if o.policy.Passthrough {
		if err := o.answerOpen(n, n.ID(), flags, nil, true, &out.OpenOut); err != nil {
			o.forgetOne(n)
			return o.status("create", err)
		}
		out.SetAttrTimeout(o.attrTimeout(n, out.Attr.Mode))
		return fuse.OK
	}
	out.OpenOut = fuse.OpenOut{OpenFlags: o.keepCache()} // as the kernel opens by itself
	if o.policy.DirectIO && writesDirectly(flags) {
		n.flags.Or(direct)
		out.OpenOut = fuse.OpenOut{OpenFlags: fuse.FOPEN_DIRECT_IO, Fh: directHandle}
	}
	return fuse.OK
}
