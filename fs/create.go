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
	o.counts.add(opCreate)
	switch {
	case o.policy.passthrough:
		return o.createOpen(in, name, out)
	case o.policy.direct:
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
	o.counts.add(opMknod)
	if in.Mode&unix.S_IFMT == unix.S_IFCHR && in.Rdev == 0 {
		return fuse.EPERM // it would be a whiteout
	}
	return o.make(&in.InHeader, name, out, &stack.Object{Mode: in.Mode, Umask: in.Umask, Rdev: libcDev(in.Rdev)})
}

// Mkdir answers MKDIR.
func (o *Overlay) Mkdir(_ <-chan struct{}, in *fuse.MkdirIn, name string, out *fuse.EntryOut) fuse.Status {
	o.counts.add(opMkdir)
	return o.make(&in.InHeader, name, out, &stack.Object{Mode: unix.S_IFDIR | in.Mode&0o7777, Umask: in.Umask})
}

// Symlink answers SYMLINK.
func (o *Overlay) Symlink(_ <-chan struct{}, h *fuse.InHeader, target, name string, out *fuse.EntryOut) fuse.Status {
	o.counts.add(opSymlink)
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
	n, err := o.newEntry(p, name, &st, func(d *openDir, up *sys.Dir, f *stack.Found) (*Node, error) {
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
func (o *Overlay) newEntry(p *Node, name string, st *sys.Stat,
	f func(*openDir, *sys.Dir, *stack.Found) (*Node, error)) (*Node, error) {
	if p.dir == nil {
		return nil, unix.ENOTDIR
	}
	if len(name) > stack.NameMax {
		return nil, unix.ENAMETOOLONG
	}
	if whiteout.IsMarker(name) {
		return nil, unix.EPERM // it would be a whiteout
	}
	if err := o.mayAddEntry(p); err != nil {
		return nil, err
	}
	if err := o.copyUp(p, wholeFile); err != nil {
		return nil, err
	}
	o.renameMu.RLock()
	defer o.renameMu.RUnlock()
	d := o.open(p)
	defer d.release()
	p.dir.mu.Lock()
	defer p.dir.mu.Unlock()
	if err := o.stack.Load(&p.dir.Dir, d); err != nil {
		return nil, err
	}
	var found stack.Found
	if err := o.stack.Lookup(&p.dir.Dir, d, name, &found); err != nil {
		return nil, err
	}
	if found.Exists() {
		return nil, unix.EEXIST
	}
	up, err := d.upper()
	if err != nil {
		return nil, err
	}
	return f(d, up, &found)
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
	n, err := o.adopt(p, name, &stack.Found{State: stack.InUpper, Layer: stack.Upper, Dirs: []uint16{stack.Upper}, Stat: *st})
	if err != nil {
		if file != nil {
			file.Close()
		}
		return nil, err
	}
	if n.dir != nil {
		n.dir.mu.Lock()
		n.dir.Dir = stack.NewEmptyDir()
		n.dir.mu.Unlock()
	}
	n.flags.Or(protectionKnown) // a directory hands down other flags alone
	if file == nil {
		return n, nil
	}
	if !o.cfg.LayersChange {
		n.flags.Or(bare)
	}
	o.handles.Release(o.keepHandle(n, stack.Upper, useWrite, handle{file: file}))
	return n, nil
}

// Link answers LINK: one more name for an object.
func (o *Overlay) Link(_ <-chan struct{}, in *fuse.LinkIn, name string, out *fuse.EntryOut) fuse.Status {
	o.counts.add(opLink)
	p, err := o.node(in.NodeId)
	if err != nil {
		return o.status("link", err)
	}
	n, err := o.node(in.Oldnodeid)
	if err != nil {
		return o.status("link", err)
	}
	if err := o.mayLink(n, p); err != nil {
		return o.status("link", err)
	}
	if err := o.copyUp(n, noData); err != nil {
		return o.status("link", err)
	}
	if err := o.settle(n); err != nil {
		return o.status("link", err)
	}
	var st sys.Stat
	link := func() error {
		_, err := o.newEntry(p, name, &st, func(_ *openDir, up *sys.Dir, f *stack.Found) (*Node, error) {
			return n, o.linkLocked(n, p, up, name, f, &st)
		})
		return err
	}
	if err = link(); err == unix.EXDEV && o.hasShortName(n) {
		if err = o.copyUp(n, wholeFile); err == nil {
			err = link()
		}
	}
	if err != nil {
		return o.status("link", err)
	}
	return o.status("link", o.entry(n, &st, out))
}

// mayLink reports EPERM if n gets no further name, or the directory p no new entry.
func (o *Overlay) mayLink(n, p *Node) error {
	if err := o.mayAddEntry(p); err != nil {
		return err
	}
	return o.mayChange(n)
}

// linkLocked links n into p and takes the reference that the reply hands over. Preconditions: those of newEntry's f.
func (o *Overlay) linkLocked(n, p *Node, up *sys.Dir, name string, f *stack.Found, st *sys.Stat) error {
	at := n.place()
	if !n.mayBeLinked(at) {
		return unix.ENOENT
	}
	src, err := o.object(at)
	if err != nil {
		return err
	}
	defer src.release()
	if err := o.leadFromAnywhere(n, at, src.Inode()); err != nil {
		return err
	}
	if o.hasOrigin(n) {
		if err := o.stack.MarkImpure(&p.dir.Dir, up); err != nil {
			return err
		}
	}
	if err := o.stack.Link(&p.dir.Dir, up, name, f, src.Inode(), n.kind); err != nil {
		return err
	}
	if !o.nodes.Ref(n) {
		return unix.ESTALE
	}
	n.addName(placed{p, name})
	p.dir.children[name] = n
	n.mu.Lock()
	key := n.key
	n.mu.Unlock()
	o.nodes.Link(key, n)
	if err := o.stack.Shown(stack.Upper, up.At(name)).Stat(st); err != nil {
		o.unref(n)
		return err
	}
	n.count(st)
	return nil
}
