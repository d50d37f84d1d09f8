package fs

import (
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/fs/stack"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// Unlink answers UNLINK.
func (o *Overlay) Unlink(_ <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	o.counts.add(opUnlink)
	return o.status("unlink", o.unlink(h.NodeId, name))
}

// unlink removes a name that is not a directory's.
func (o *Overlay) unlink(parent uint64, name string) error {
	for try := 0; try < renameTries; try++ {
		if p, err := o.node(parent); err == nil && p.dir != nil {
			if err := o.shareName(placed{p, name}); err != nil {
				return err
			}
		}
		if err := o.removeEntry(parent, name, o.unlinkLocked); err != errNotShared {
			return err
		}
	}
	return unix.EBUSY
}

// Rmdir answers RMDIR.
func (o *Overlay) Rmdir(_ <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	o.counts.add(opRmdir)
	return o.status("rmdir", o.removeEntry(h.NodeId, name, o.rmdirLocked))
}

// removal is one name about to go. renameMu R and p.dir.mu are held.
type removal struct {
	p     *Node
	d     *openDir
	up    *sys.Dir
	name  string
	found stack.Found
	node  *Node // in use until renameMu and the mu are given back
}

// removeEntry calls f with p in the upper, where a whiteout may have to go, and its mu held. The object itself is not
// copied up, and nothing is for a removal that cannot be.
func (o *Overlay) removeEntry(parent uint64, name string, f func(*removal) error) error {
	p, err := o.node(parent)
	if err != nil {
		return err
	}
	if p.dir == nil {
		return unix.ENOTDIR
	}
	protection, err := o.protection(p)
	if err != nil {
		return err
	}
	if !p.inUpper() {
		if err := o.removeLocked(p, name, protection, o.removable); err != nil {
			return err
		}
		if err := o.copyUp(p, wholeFile); err != nil {
			return err
		}
	}
	return o.removeLocked(p, name, protection, func(r *removal) (err error) {
		if r.up, err = r.d.upper(); err != nil {
			return err
		}
		return f(r)
	})
}

// removeLocked calls f with the entry looked up and p's mu held. protection is that of p.
func (o *Overlay) removeLocked(p *Node, name string, protection uint32, f func(*removal) error) error {
	r := removal{p: p, name: name, d: o.open(p)}
	defer func() {
		if r.node != nil {
			o.forgetOne(r.node)
		}
	}()
	o.renameMu.RLock()
	defer o.renameMu.RUnlock()
	defer r.d.release()
	p.dir.mu.Lock()
	defer p.dir.mu.Unlock()
	if err := o.stack.Load(&p.dir.Dir, r.d); err != nil {
		return err
	}
	if err := o.stack.Lookup(&p.dir.Dir, r.d, name, &r.found); err != nil {
		return err
	}
	if !r.found.Exists() {
		return unix.ENOENT
	}
	if known := p.dir.children[name]; o.cfg.LayersChange && known != nil && !known.isStill(&r.found) {
		o.lose(known, placed{p, name})
	}
	if err := cannot(protection, immutable|appendOnly, o.mayRemove(&r)); err != nil {
		return err
	}
	return f(&r)
}

// removable reports ENOTEMPTY for a directory that shows an entry.
func (o *Overlay) removable(r *removal) error {
	if !r.found.IsDir() {
		return nil
	}
	n, err := o.dirOf(r)
	if err != nil {
		return err
	}
	n.dir.mu.Lock()
	defer n.dir.mu.Unlock()
	return o.checkEmpty(n)
}

// dirOf returns the node of the directory to be removed.
func (o *Overlay) dirOf(r *removal) (*Node, error) {
	var st sys.Stat
	n, err := o.childLocked(r.p, r.d, r.name, &st)
	if err != nil {
		return nil, err
	}
	if n == nil || n.dir == nil {
		return nil, unix.ENOENT
	}
	r.node = n
	return n, nil
}

func (o *Overlay) unlinkLocked(r *removal) error {
	if r.found.IsDir() {
		return unix.EISDIR
	}
	if r.found.Shared != nil { // made by another since it was looked at
		return errNotShared
	}
	n := r.p.dir.children[r.name]
	if n != nil && n.lastName() {
		if err := o.keepOpen(n, r.d, &r.found, r.name); err != nil {
			return err
		}
	}
	if err := o.stack.Remove(&r.p.dir.Dir, r.up, r.name, &r.found); err != nil {
		return err
	}
	o.linkRemoved(n)
	o.detach(n, placed{r.p, r.name})
	if n == nil && r.found.State == stack.InUpper && r.found.Stat.Nlink == 1 {
		o.numbers.Gone(keyOf(&r.found.Stat))
	}
	return nil
}

// keepOpen holds an object open that is about to lose its name: somebody may still use it.
func (o *Overlay) keepOpen(n *Node, d *openDir, f *stack.Found, name string) error {
	h, err := d.Layer(f.Layer)
	if err != nil {
		return err
	}
	return n.keep(h.At(name))
}

// detach takes a removed name from its node, if there is one. Preconditions: renameMu R and the mu of p's directory, or W.
func (o *Overlay) detach(n *Node, p placed) {
	if n == nil {
		return
	}
	delete(p.parent.dir.children, p.name)
	n.removeName(p)
}

func (o *Overlay) rmdirLocked(r *removal) error {
	if !r.found.IsDir() {
		return unix.ENOTDIR
	}
	n, err := o.dirOf(r)
	if err != nil {
		return err
	}
	n.dir.mu.Lock()
	defer n.dir.mu.Unlock()
	if err := o.checkEmpty(n); err != nil {
		return err
	}
	if err := o.keepOpen(n, r.d, &r.found, r.name); err != nil {
		return err
	}
	if err := o.stack.RemoveDir(&r.p.dir.Dir, r.up, r.name, &r.found); err != nil {
		return err
	}
	o.detach(n, placed{r.p, r.name})
	return nil
}

// checkEmpty reports ENOTEMPTY when a directory shows an entry. Preconditions: renameMu R and n.dir.mu, or W.
func (o *Overlay) checkEmpty(n *Node) error {
	d := o.open(n)
	defer d.release()
	if err := o.stack.Relist(&n.dir.Dir, d); err != nil {
		return err
	}
	if !n.dir.Empty() {
		return unix.ENOTEMPTY
	}
	return nil
}
