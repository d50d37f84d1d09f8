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

// unlink removes a name of an object that is not a directory.
func (o *Overlay) unlink(parent uint64, name string) error {
	for try := 0; try < renameTries; try++ {
		if p, err := o.node(parent); err == nil && p.dir != nil {
			if err := o.shareName(placed{p, name}); err != nil {
				return err
			}
		}
		if err := o.removeEntry(parent, name, unlinks); err != errNotLinkedUp {
			return err
		}
	}
	return unix.EBUSY
}

// Rmdir answers RMDIR.
func (o *Overlay) Rmdir(_ <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	return o.status("rmdir", o.removeEntry(h.NodeId, name, removesDir))
}

// removalKind is what a request removes.
type removalKind uint8

const (
	unlinks    removalKind = iota // UNLINK: anything but a directory
	removesDir                    // RMDIR
)

// removal is the removal of one name under way.
type removal struct {
	o    *Overlay
	p    *Node
	d    *openDir // opens p
	name string
	kind removalKind

	up         *sys.Dir // p in the upper
	found      stack.Found
	protection nodeFlag // of p

	// Inode flags of an entry that lies in a lower and has no node.
	flags      uint32
	flagsKnown bool

	dir    *Node // the node of a directory to remove, with a reference, and listed
	victim victim
}

// removeEntry removes a name of p. It copies p up first, for a possible whiteout, but not the
// object itself, and copies nothing up for a removal that is refused.
func (o *Overlay) removeEntry(parent uint64, name string, kind removalKind) error {
	p, err := o.node(parent)
	if err != nil {
		return err
	}
	if p.dir == nil {
		return unix.ENOTDIR
	}
	protection, err := o.guard.protection(p)
	if err != nil {
		return err
	}
	o.refresh(p)
	r := removal{o: o, p: p, d: o.openDir(p), name: name, kind: kind, protection: protection}
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
		if err := r.try(); err != errNeedsLayers {
			return err
		}
		if err := r.check(); err != nil {
			return err
		}
	}
}

// try removes the name, with p locked; errNeedsLayers: check comes first. Preconditions: no
// directory's mu is held.
func (r *removal) try() error {
	if err := r.lock(); err != nil {
		return err
	}
	defer r.p.dir.mu.Unlock()
	err := r.allowedLocked()
	if err == nil {
		r.up, err = r.d.upper()
	}
	switch {
	case err != nil:
		return err
	case r.kind == removesDir:
		return r.rmdirLocked()
	}
	return r.unlinkLocked()
}

// lock finds the entry and locks p. After an error p is not locked. Preconditions: no directory's
// mu is held.
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

// allowedLocked returns the reason why the entry must stay; errNeedsLayers: check comes first.
// Preconditions: p is locked, and the entry found.
func (r *removal) allowedLocked() error {
	if known := r.p.dir.children[r.name]; r.o.cfg.LayersChange && known != nil && !known.isStill(&r.found) {
		return errNeedsLayers
	}
	return refuse(r.protection, r.o.guard.mayRemoveLocked(r))
}

// check returns the reason why the entry cannot be removed, and opens what its removal needs.
// Preconditions: no directory's mu is held.
func (r *removal) check() error {
	for {
		if err := r.lock(); err != nil {
			return err
		}
		err := r.allowedLocked()
		r.p.dir.mu.Unlock()
		if err == errNeedsLayers {
			if err = r.readForAllowed(); err == nil {
				continue
			}
		}
		switch {
		case err != nil:
			return err
		case r.kind == removesDir:
			return r.checkDir()
		case r.found.IsDir():
			return unix.EISDIR
		}
		return r.victim.openLower(r.d, r.name, r.found.Layer)
	}
}

// readForAllowed reads from the layers what allowedLocked needs. Preconditions: no directory's mu
// is held.
func (r *removal) readForAllowed() error {
	if r.o.cfg.LayersChange { // the name may have another object now
		var st sys.Stat
		n, err := r.o.child(r.p, r.name, &st)
		if n != nil {
			r.o.forgetOne(n)
		}
		if err != nil {
			return err
		}
	}
	return r.o.guard.readForRemoval(r)
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
	if r.dir = n; n.dir == nil {
		return unix.ENOTDIR
	}
	// allowedLocked needs the protection of n, which child has cleared if layers change.
	if _, err := o.guard.protection(n); err != nil {
		return err
	}
	if err := o.lockListed(n); err != nil {
		return err
	}
	err = n.checkEmptyLocked()
	n.dir.mu.Unlock()
	if err != nil {
		return err
	}
	return r.victim.openLower(r.d, r.name, n.place().layer)
}

func (r *removal) release() {
	r.forget()
	r.victim.close()
	r.d.release()
}

func (r *removal) forget() {
	if r.dir != nil {
		r.o.forgetOne(r.dir)
		r.dir = nil
	}
}

// unlinkLocked removes the name. Preconditions: p.dir.mu is held, the entry is found.
func (r *removal) unlinkLocked() error {
	o := r.o
	if r.found.IsDir() {
		return unix.EISDIR
	}
	if r.found.Shared != nil { // another request has made it since the last look
		return errNotLinkedUp
	}
	n := r.p.dir.children[r.name]
	if n != nil && n.lastName() {
		if err := r.victim.keepForLocked(n, r.d, r.name, &r.found); err != nil {
			return err
		}
	}
	defer n.lockLinks()()
	if err := o.stack.Remove(&r.p.dir.Dir, r.up, r.name, &r.found); err != nil {
		return err
	}
	o.linkRemovedLocked(n)
	o.detachLocked(n, placed{r.p, r.name})
	if n == nil && r.found.State == stack.InUpper && r.found.Stat.Nlink == 1 {
		o.numbers.Forget(keyOf(&r.found.Stat))
	}
	return nil
}

// rmdirLocked removes the directory. Preconditions: those of unlinkLocked.
func (r *removal) rmdirLocked() error {
	o := r.o
	if !r.found.IsDir() {
		return unix.ENOTDIR
	}
	n := r.p.dir.children[r.name]
	if n == nil || n != r.dir && (o.cfg.LayersChange || o.nodes.Dropped(n)) {
		return errNeedsLayers
	}
	n.dir.mu.Lock()
	defer n.dir.mu.Unlock()
	if err := n.checkEmptyLocked(); err != nil {
		return err
	}
	if err := r.victim.keepForLocked(n, r.d, r.name, &r.found); err != nil {
		return err
	}
	if err := o.stack.RemoveDir(&r.p.dir.Dir, r.up, r.name, &r.found); err != nil {
		return err
	}
	o.detachLocked(n, placed{r.p, r.name})
	return nil
}
