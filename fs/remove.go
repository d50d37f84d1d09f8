package fs

import (
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/fs/stack"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// Unlink answers UNLINK.
func (o *Overlay) Unlink(_ <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
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
		if err := o.removeEntry(parent, name, false, o.unlinkLocked); err != errNotShared {
			return err
		}
	}
	return unix.EBUSY
}

// Rmdir answers RMDIR.
func (o *Overlay) Rmdir(_ <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	return o.status("rmdir", o.removeEntry(h.NodeId, name, true, o.rmdirLocked))
}

// removal is one name about to go.
type removal struct {
	o     *Overlay
	p     *Node
	d     *openDir
	name  string
	isDir bool // as the caller wants it

	up    *sys.Dir
	found stack.Found
	// protection is that of p. flags is that of the entry, if that lies in a lower without a node
	// and its flags have been read.
	protection uint32
	flags      uint32
	flagsAsked bool
	node       *Node // of a directory, with a reference, and listed
	kept       keeper
}

// removeEntry calls remove with p copied up, for a possible whiteout, with its mu held and the
// entry found. It does not copy up the object itself, and copies nothing up for a removal that is
// refused.
func (o *Overlay) removeEntry(parent uint64, name string, isDir bool, remove func(*removal) error) error {
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
	o.refresh(p)
	r := removal{o: o, p: p, d: o.open(p), name: name, isDir: isDir, protection: protection}
	defer r.release()
	if !p.inUpper() {
		if err := r.check(); err != nil {
			return err
		}
		if err := o.copyUp(p, wholeFile); err != nil {
			return err
		}
	}
	for {
		err := r.lock()
		if err == nil {
			if err = r.allowed(); err == nil {
				if r.up, err = r.d.upper(); err == nil {
					err = remove(&r)
				}
			}
			p.dir.mu.Unlock()
		}
		if err != errAside {
			return err
		}
		if err := r.check(); err != nil {
			return err
		}
	}
}

// lock finds the entry and locks p. After an error p is not locked. Precondition: no directory's mu is held.
func (r *removal) lock() error {
	if err := r.o.lockEntry(r.p, r.d, r.name, &r.found); err != nil {
		return err
	}
	if !r.found.Exists() {
		r.p.dir.mu.Unlock()
		return unix.ENOENT
	}
	return nil
}

// allowed reports why the entry must stay; errAside: only after check. Precondition: p is locked, and the entry found.
func (r *removal) allowed() error {
	if known := r.p.dir.children[r.name]; r.o.cfg.LayersChange && known != nil && !known.isStill(&r.found) {
		return errAside
	}
	return cannot(r.protection, immutable|appendOnly, r.o.mayRemove(r))
}

// check reports why the entry cannot be removed, and makes ready what its removal needs. Precondition: no directory's mu is held.
func (r *removal) check() error {
	for {
		if err := r.lock(); err != nil {
			return err
		}
		err := r.allowed()
		r.p.dir.mu.Unlock()
		if err == errAside {
			if err = r.askAllowed(); err == nil {
				continue
			}
		}
		switch {
		case err != nil:
			return err
		case r.isDir:
			return r.checkDir()
		case r.found.IsDir():
			return unix.EISDIR
		}
		return r.kept.ready(r.d, r.name, r.found.Layer)
	}
}

// askAllowed finds out what allowed has to know. Precondition: no directory's mu is held.
func (r *removal) askAllowed() error {
	if r.o.cfg.LayersChange { // what is known of the name is brought up to date
		var st sys.Stat
		n, err := r.o.child(r.p, r.name, &st)
		if n != nil {
			r.o.forgetOne(n)
		}
		if err != nil {
			return err
		}
	}
	return r.o.askProtection(r)
}

func (r *removal) checkDir() error {
	o := r.o
	r.forget()
	var st sys.Stat
	n, err := o.child(r.p, r.name, &st)
	if err != nil {
		return err
	}
	if n == nil {
		return unix.ENOENT
	}
	if r.node = n; n.dir == nil {
		return unix.ENOTDIR
	}
	if _, err := o.protection(n); err != nil { // allowed has to know it, and where layers change, child has forgotten it
		return err
	}
	if err := o.lockListed(n); err != nil {
		return err
	}
	err = n.checkEmpty()
	n.dir.mu.Unlock()
	if err != nil {
		return err
	}
	return r.kept.ready(r.d, r.name, n.place().layer)
}

func (r *removal) release() {
	r.forget()
	r.kept.close()
	r.d.release()
}

func (r *removal) forget() {
	if r.node != nil {
		r.o.forgetOne(r.node)
		r.node = nil
	}
}

// unlinkLocked removes the name. Preconditions: p.dir.mu is held, the entry is found.
func (o *Overlay) unlinkLocked(r *removal) error {
	if r.found.IsDir() {
		return unix.EISDIR
	}
	if r.found.Shared != nil { // made by another since it was looked at
		return errNotShared
	}
	n := r.p.dir.children[r.name]
	if n != nil && n.lastName() {
		if err := r.kept.keep(n, r.d, r.name, &r.found); err != nil {
			return err
		}
	}
	defer n.lockLinks()()
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

// detach takes a removed name from its node, if there is one. Precondition: the mu of p's directory is held.
func (o *Overlay) detach(n *Node, p placed) {
	if n == nil {
		return
	}
	delete(p.parent.dir.children, p.name)
	n.removeName(p)
}

// rmdirLocked removes the directory. Preconditions: those of unlinkLocked.
func (o *Overlay) rmdirLocked(r *removal) error {
	if !r.found.IsDir() {
		return unix.ENOTDIR
	}
	n := r.p.dir.children[r.name]
	if n == nil || n != r.node && (o.cfg.LayersChange || o.nodes.Dropped(n)) {
		return errAside
	}
	n.dir.mu.Lock()
	defer n.dir.mu.Unlock()
	if err := n.checkEmpty(); err != nil {
		return err
	}
	if err := r.kept.keep(n, r.d, r.name, &r.found); err != nil {
		return err
	}
	if err := o.stack.RemoveDir(&r.p.dir.Dir, r.up, r.name, &r.found); err != nil {
		return err
	}
	o.detach(n, placed{r.p, r.name})
	return nil
}

// keeper opens an object that is about to lose its last name, because processes may still use it.
// It opens an object of the upper during the removal, and one of a lower before it with no lock
// held.
type keeper struct {
	layer  int
	object *sys.Object // of that lower; nil: not opened
}

// ready opens what a layer has under a name, if that is a lower. Precondition: no directory's mu is held.
func (k *keeper) ready(d *openDir, name string, layer int) error {
	if k.object != nil || layer == stack.Upper {
		return nil
	}
	h, err := d.Layer(layer)
	if err == nil {
		k.layer = layer
		k.object, err = h.At(name).Open()
	}
	return err
}

// keep has n hold its object, found under a name of the directory that d opens, open; errAside: only after ready. Precondition: that
// directory's mu is held.
func (k *keeper) keep(n *Node, d *openDir, name string, f *stack.Found) error {
	if f.Layer == stack.Upper {
		up, err := d.upper()
		if err != nil {
			return err
		}
		kept, err := up.At(name).Open()
		if err == nil {
			n.setKept(kept)
		}
		return err
	}
	if k.object == nil || k.layer != f.Layer {
		return errAside
	}
	n.setKept(k.object)
	k.object = nil
	return nil
}

func (k *keeper) close() {
	if k.object != nil {
		k.object.Close()
	}
}
