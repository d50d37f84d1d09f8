package fs

import (
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/fs/stack"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// Link answers LINK: one more name for an object.
func (o *Overlay) Link(_ <-chan struct{}, in *fuse.LinkIn, name string, out *fuse.EntryOut) fuse.Status {
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
	if err := o.copyUpMetadata(n); err != nil {
		return o.status("link", err)
	}
	if err := o.syncNlink(n); err != nil {
		return o.status("link", err)
	}
	var st sys.Stat
	if err = o.link(n, p, name, &st); err == unix.EXDEV && o.hasShortName(n) {
		if err = o.copyUp(n, wholeFile); err == nil {
			err = o.link(n, p, name, &st)
		}
	}
	if err != nil {
		return o.status("link", err)
	}
	return o.status("link", o.entry(n, &st, out))
}

// mayLink reports EPERM if n gets no further name, or the directory p no new entry.
func (o *Overlay) mayLink(n, p *Node) error {
	if err := o.guard.mayAddEntry(p); err != nil {
		return err
	}
	return o.guard.mayChange(n)
}

// link gives n, which is in the upper, a further name.
func (o *Overlay) link(n, p *Node, name string, st *sys.Stat) error {
	if err := o.prepareForEntry(p, name); err != nil {
		return err
	}
	l := linking{o: o, n: n, p: p, name: name, st: st, d: o.openDir(p)}
	defer l.d.release()
	for {
		if err := l.try(); err != errNeedsLayers {
			return err
		}
		if err := o.askLowers(p, l.d, name); err != nil {
			return err
		}
	}
}

// linking is a LINK under way.
type linking struct {
	o    *Overlay
	n, p *Node
	name string
	st   *sys.Stat
	d    *openDir // of p
}

// try links, with the directories of both names locked, so that neither name becomes another
// object's.
func (l *linking) try() error {
	o, at := l.o, l.n.place()
	if !l.n.mayBeLinked(&at) {
		return unix.ENOENT
	}
	beside := l.p // the directory of a name that n has
	if at.inUpperDir() {
		beside = at.parent
	}
	from := o.openDir(beside)
	defer from.release()
	up, err := from.upper()
	if err != nil && l.n.place() == at {
		return err
	}
	defer o.lockDirs(beside, l.p)()
	if err != nil || l.n.place() != at {
		return errNeedsLayers
	}
	var found stack.Found
	if err := o.resolveLocked(l.p, l.d, l.name, &found); err != nil {
		return err
	}
	if found.Exists() {
		return unix.EEXIST
	}
	var src sys.Ref
	switch {
	case at.unlinked:
		src = o.stack.Shown(stack.Upper, at.object.Ref()).Inode()
	case at.inUpperDir():
		src = o.stack.Shown(stack.Upper, up.At(at.name)).Inode()
	case at.shared != nil:
		src = o.stack.Shown(stack.Upper, o.stack.Copy(at.shared)).Inode()
	default:
		return unix.EPERM // the root
	}
	return l.linkLocked(&at, src, &found)
}

// linkLocked links src, the object of n, and takes the reference that the reply gives the kernel.
// Preconditions: the mu of both directories is held, and p is open in the upper.
func (l *linking) linkLocked(at *place, src sys.Ref, f *stack.Found) error {
	o, n, p := l.o, l.n, l.p
	up, err := l.d.upper()
	if err != nil {
		return err
	}
	if err := o.makeRedirectAbsoluteLocked(n, at, src); err != nil {
		return err
	}
	if err := o.stack.MarkImpureFor(&p.dir.Dir, up, src); err != nil {
		return err
	}
	defer n.lockLinks()()
	if err := o.stack.Link(&p.dir.Dir, up, l.name, f, src, n.kind); err != nil {
		return err
	}
	if !o.nodes.Ref(n) {
		return unix.ESTALE
	}
	o.addName(n, placed{p, l.name})
	p.dir.children[l.name] = n
	n.mu.Lock()
	key := n.key
	n.mu.Unlock()
	o.nodes.Link(key, n)
	if err := o.stack.Shown(stack.Upper, up.At(l.name)).Stat(l.st); err != nil {
		o.unref(n)
		return err
	}
	n.countLocked(l.st)
	return nil
}

// mayBeLinked reports whether n may get a further name, or its first one, at a place where it was.
func (n *Node) mayBeLinked(at *place) bool {
	if !at.unlinked {
		return true
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.rareLocked().linkable
}
