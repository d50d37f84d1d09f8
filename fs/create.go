package fs

import (
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/fs/stack"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
	"github.com/fuse-overlay/fuse-overlay/whiteout"
)

// Create answers CREATE. After ENOSYS the kernel sends MKNOD and opens files by itself.
func (o *Overlay) Create(_ <-chan struct{}, in *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	if !o.policy.Passthrough && !o.policy.DirectIO {
		return fuse.ENOSYS
	}
	n, status := o.makeFile(in, name, &out.EntryOut)
	if status != fuse.OK {
		return status
	}
	return o.openMade(n, in.Flags, out)
}

// makeFile makes the file of a CREATE.
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
	return o.make(&in.InHeader, name, out, &stack.Object{Mode: in.Mode, Umask: in.Umask, Rdev: LibcDev(in.Rdev)})
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
		return o.nodeOfNewLocked(p, up, name, file, &st)
	})
	if err != nil {
		return o.status("create", err)
	}
	return o.status("create", o.entry(n, &st, out))
}

// newEntry calls f to give p a new entry, with p in the upper and its mu held. EEXIST if the name
// shows an object.
func (o *Overlay) newEntry(p *Node, name string, f func(*sys.Dir, *stack.Found) (*Node, error)) (*Node, error) {
	if err := o.prepareForEntry(p, name); err != nil {
		return nil, err
	}
	d := o.openDir(p)
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

// prepareForEntry reports whether p may get an entry of that name, and copies p up.
func (o *Overlay) prepareForEntry(p *Node, name string) error {
	switch {
	case p.dir == nil:
		return unix.ENOTDIR
	case len(name) > stack.NameMax:
		return unix.ENAMETOOLONG
	case whiteout.IsMarker(name):
		return unix.EPERM // it would be a whiteout
	}
	if err := o.guard.mayAddEntry(p); err != nil {
		return err
	}
	return o.copyUp(p, wholeFile)
}

// nodeOfNewLocked makes the node of an object just made. file is nil or the object, opened for
// writing: nodeOfNewLocked closes it, or keeps it for the WRITEs that follow.
func (o *Overlay) nodeOfNewLocked(p *Node, up *sys.Dir, name string, file *sys.File, st *sys.Stat) (*Node, error) {
	err := o.stack.Shown(stack.Upper, refTo(up, name, file)).Stat(st)
	if err != nil {
		if file != nil {
			file.Close()
		}
		return nil, err
	}
	m := lookup{
		o: o, p: p, name: name, nameStays: true,
		found: stack.Found{State: stack.InUpper, Layer: stack.Upper, Dirs: []uint16{stack.Upper}, Stat: *st},
	}
	if m.found.IsDir() {
		n := o.newNode(p, name, &m.found, nil)
		n.dir.Dir = stack.NewEmptyDir()  // no other goroutine has a reference to it
		n.flags.set(flagProtectionKnown) // a directory hands down other flags alone
		o.numbers.claim(n)
		p.dir.children[name] = n
		return n, nil
	}
	n, err := m.nodeOfFoundLocked()
	if err != nil {
		o.unref(m.unused)
		if file != nil {
			file.Close()
		}
		return nil, err
	}
	n.flags.set(flagProtectionKnown)
	if file == nil {
		return n, nil
	}
	if !o.cfg.LayersChange {
		n.flags.set(flagNoCapability)
	}
	o.handles.Release(o.keepHandle(n, stack.Upper, forWriting, handle{file: file}))
	return n, nil
}

// openMade fills in how a new file is open for the process that has made it.
func (o *Overlay) openMade(n *Node, flags uint32, out *fuse.CreateOut) fuse.Status {
	if o.policy.Passthrough {
		if err := o.passthrough.openNew(n, flags, &out.OpenOut); err != nil {
			o.forgetOne(n)
			return o.status("create", err)
		}
		out.SetAttrTimeout(o.attrTimeout(n, out.Attr.Mode))
		return fuse.OK
	}
	out.OpenOut = fuse.OpenOut{OpenFlags: o.keepCache()} // as the kernel opens by itself
	if o.policy.DirectIO && writesDirectly(flags) {
		n.flags.set(flagDirectIO)
		out.OpenOut = fuse.OpenOut{OpenFlags: fuse.FOPEN_DIRECT_IO, Fh: directHandle}
	}
	return fuse.OK
}
