package fs

import (
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/fs/stack"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// Tmpfile answers TMPFILE, of Linux 6.1: an O_TMPFILE file in a directory, opened. Its node is
// unlinked, but one LINK may give it a name. EOPNOTSUPP if the upper's file system has no such
// files.
func (o *Overlay) Tmpfile(_ <-chan struct{}, in *fuse.CreateIn, out *fuse.CreateOut) fuse.Status {
	p, err := o.node(in.NodeId)
	if err != nil {
		return o.status("tmpfile", err)
	}
	obj := &stack.Object{Mode: unix.S_IFREG | in.Mode&0o7777, Umask: in.Umask, UID: in.Uid, GID: in.Gid}
	var st sys.Stat
	n, err := o.makeUnlinked(p, obj, &st)
	if err == nil {
		err = o.entry(n, &st, &out.EntryOut)
	}
	if err != nil {
		return o.status("tmpfile", err)
	}
	return o.openMade(n, in.Flags, out)
}

// makeUnlinked makes an O_TMPFILE file in the directory p, which inherits from p what an entry
// does.
func (o *Overlay) makeUnlinked(p *Node, obj *stack.Object, st *sys.Stat) (*Node, error) {
	if p.dir == nil {
		return nil, unix.ENOTDIR
	}
	if err := o.guard.mayAddEntry(p); err != nil {
		return nil, err
	}
	if err := o.copyUp(p, wholeFile); err != nil {
		return nil, err
	}
	d := o.openDir(p)
	defer d.release()
	up, err := d.upper()
	if err != nil {
		return nil, err
	}
	p.dir.mu.Lock()
	defer p.dir.mu.Unlock()
	file, err := o.stack.CreateTmpfile(&p.dir.Dir, up, obj)
	if err != nil {
		return nil, err
	}
	err = o.stack.Shown(stack.Upper, file.Ref()).Stat(st)
	var object *sys.Object
	if err == nil {
		object, err = file.Ref().Open()
	}
	if err != nil {
		file.Close()
		return nil, err
	}
	n := &Node{kind: unix.S_IFREG, parent: p, unlinked: true, layer: stack.Upper, key: keyOf(st)}
	n.rare = &rareState{object: object, linkable: true} // no other goroutine has a reference to n
	n.flags.set(flagNoCapability | flagProtectionKnown)
	n.ino.Store(o.numbers.Of(n.key))
	o.nodes.Insert(n)
	o.journal.add(n)
	o.pruner.wake()
	o.handles.Release(o.keepHandle(n, stack.Upper, forWriting, handle{file: file}))
	return n, nil
}
