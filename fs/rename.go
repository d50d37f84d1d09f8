package fs

import (
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/fs/stack"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
	"github.com/fuse-overlay/fuse-overlay/whiteout"
)

// renameTries bounds how often a rename or removal begins again because an object was moved between
// its copy-up and the change.
const renameTries = 16

// Rename answers RENAME and RENAME2 with NOREPLACE or EXCHANGE.
func (o *Overlay) Rename(_ <-chan struct{}, in *fuse.RenameIn, oldName, newName string) fuse.Status {
	if in.Flags&^(unix.RENAME_NOREPLACE|unix.RENAME_EXCHANGE) != 0 {
		return fuse.EINVAL
	}
	if len(newName) > stack.NameMax {
		return fuse.Status(unix.ENAMETOOLONG)
	}
	if whiteout.IsMarker(newName) {
		return fuse.EPERM // it would be a whiteout
	}
	p, err := o.node(in.NodeId)
	if err != nil {
		return o.status("rename", err)
	}
	q, err := o.node(in.Newdir)
	if err != nil {
		return o.status("rename", err)
	}
	if p.dir == nil || q.dir == nil {
		return fuse.ENOTDIR
	}
	r := rename{o: o, flags: in.Flags, from: placed{p, oldName}, to: placed{q, newName}}
	for try := 0; try < renameTries; try++ {
		done, err := r.try()
		if done || err != nil {
			return o.status("rename", err)
		}
	}
	return o.status("rename", unix.EBUSY)
}

// rename is one rename under way.
type rename struct {
	o        *Overlay
	flags    uint32
	from, to placed

	src, dst       *Node    // the objects, with a reference; dst: nil if the name is free
	fromDir, toDir *openDir // of the parents
	victim         victim   // of dst
}

func (r *rename) exchange() bool { return r.flags&unix.RENAME_EXCHANGE != 0 }

// try copies up what must be in the upper, with nothing held, and then renames. If the tree has
// changed meanwhile, done is false, and the caller tries again.
func (r *rename) try() (done bool, err error) {
	defer r.release()
	if err := r.mayChangeDirs(); err != nil {
		return false, err
	}
	if err := r.prepare(); err != nil {
		return false, err
	}
	up := []*Node{r.from.parent, r.to.parent, r.src}
	if r.exchange() {
		up = append(up, r.dst)
	}
	for _, n := range up {
		if err := r.o.copyUpMetadata(n); err != nil {
			return false, err
		}
	}
	for _, end := range []placed{r.from, r.to} {
		if err := r.o.shareName(end); err != nil {
			return false, err
		}
	}
	r.fromDir, r.toDir = r.o.openDir(r.from.parent), r.o.openDir(r.to.parent)
	for range renameTries {
		if err := r.askLowers(); err != nil {
			return false, err
		}
		if done, err = r.commit(); err != errNeedsLayers {
			return done, err
		}
	}
	return false, nil
}

func (r *rename) release() {
	for _, n := range []*Node{r.src, r.dst} {
		if n != nil {
			r.o.forgetOne(n)
		}
	}
	for _, d := range []*openDir{r.fromDir, r.toDir} {
		if d != nil {
			d.release()
		}
	}
	r.victim.close()
	*r = rename{o: r.o, flags: r.flags, from: r.from, to: r.to}
}

// mayChangeDirs reports EPERM if one of the directories may not lose or get an entry.
func (r *rename) mayChangeDirs() error {
	if err := r.o.guard.mayChange(r.from.parent); err != nil {
		return err
	}
	if r.exchange() {
		return r.o.guard.mayChange(r.to.parent)
	}
	return r.o.guard.mayAddEntry(r.to.parent)
}

// prepare finds both ends, and checks before anything is copied up.
func (r *rename) prepare() (err error) {
	if r.src, err = r.movable(r.from); err != nil {
		return err
	}
	if r.exchange() {
		r.dst, err = r.movable(r.to)
		return err
	}
	var st sys.Stat
	if r.dst, err = r.o.child(r.to.parent, r.to.name, &st); err != nil || r.dst == nil {
		return err
	}
	if r.flags&unix.RENAME_NOREPLACE != 0 {
		return unix.EEXIST
	}
	if r.dst == r.src {
		return nil
	}
	for _, n := range []*Node{r.to.parent, r.dst} { // they may be protected
		if err := r.o.guard.mayChange(n); err != nil {
			return err
		}
	}
	if r.dst.dir == nil || r.src.dir == nil {
		return nil
	}
	if err := r.o.lockListed(r.dst); err != nil {
		return err
	}
	defer r.dst.dir.mu.Unlock()
	return r.dst.checkEmptyLocked()
}

// movable returns the node of an end that moves, with a reference. Without redirects, a directory
// with a lower part could be moved only by a copy of the whole tree. EXDEV leaves that to the
// calling program, as in the kernel's overlayfs.
func (r *rename) movable(end placed) (*Node, error) {
	o := r.o
	var st sys.Stat
	n, err := o.child(end.parent, end.name, &st)
	if err != nil {
		return nil, err
	}
	if n == nil {
		return nil, unix.ENOENT
	}
	if err = o.guard.mayChange(n); err == nil && n.dir == nil {
		return n, nil
	}
	if err == nil {
		err = o.lockLoaded(n, stack.ToChange)
	}
	if err == nil {
		if n.dir.HasLower() && !o.stack.WritesRedirects() {
			err = unix.EXDEV
		}
		n.dir.mu.Unlock()
	}
	if err != nil {
		o.forgetOne(n)
		return nil, err
	}
	return n, nil
}

// askLowers reads from the layers what commit needs. Preconditions: no directory's mu is held.
func (r *rename) askLowers() error {
	o := r.o
	if err := o.askLowers(r.from.parent, r.fromDir, r.from.name); err != nil {
		return err
	}
	if err := o.askLowers(r.to.parent, r.toDir, r.to.name); err != nil {
		return err
	}
	for _, n := range []*Node{r.src, r.dst} {
		if n == nil || n.dir == nil {
			continue
		}
		lock := o.lockListed
		if n == r.src || r.exchange() {
			lock = func(n *Node) error { return o.lockLoaded(n, stack.ToChange) }
		}
		if err := lock(n); err != nil {
			return err
		}
		n.dir.mu.Unlock()
	}
	if r.dst == nil || r.exchange() {
		return nil
	}
	return r.victim.openLower(r.toDir, r.to.name, r.dst.place().layer)
}

// commit renames; errNeedsLayers: askLowers comes first.
func (r *rename) commit() (done bool, err error) {
	if r.src.dir == nil && (r.dst == nil || r.dst.dir == nil) {
		defer r.o.lockDirs(r.from.parent, r.to.parent)()
		return r.renameLocked()
	}
	defer r.o.lockForMove(r.from.parent, r.to.parent)()
	r.o.moves.Add(1)
	defer r.o.moves.Add(1)
	return r.renameLocked()
}

// endLocked returns what lies at one end. Preconditions: the ends are locked.
func (r *rename) endLocked(at placed, d *openDir) (*stack.End, error) {
	e := &stack.End{Dir: &at.parent.dir.Dir, Name: at.name}
	if err := r.o.resolveLocked(at.parent, d, at.name, &e.Found); err != nil {
		return nil, err
	}
	var err error
	e.Up, err = d.upper()
	return e, err
}

// renameLocked checks and renames. Preconditions: the ends are locked.
func (r *rename) renameLocked() (done bool, err error) {
	from, err := r.endLocked(r.from, r.fromDir)
	if err != nil {
		return false, err
	}
	to, err := r.endLocked(r.to, r.toDir)
	if err != nil {
		return false, err
	}
	switch {
	case !from.Found.Exists():
		return false, unix.ENOENT
	case r.exchange() && !to.Found.Exists():
		return false, unix.ENOENT
	case r.flags&unix.RENAME_NOREPLACE != 0 && to.Found.Exists():
		return false, unix.EEXIST
	case from.Found.State != stack.InUpper, to.Found.State != stack.InUpper && (r.exchange() || to.Found.Shared != nil):
		return false, nil
	}
	src, dst := r.src, r.dst
	if r.knownLocked(r.from) != src || to.Found.Exists() && (dst == nil || r.knownLocked(r.to) != dst) {
		return false, nil
	}
	if !to.Found.Exists() {
		dst = nil
	}
	if src == dst {
		return true, nil // two names of one object: POSIX requires no change
	}
	if err := r.checkLoopLocked(src, dst); err != nil {
		return false, err
	}
	r.originsLocked(from, to, src, dst)
	if err := r.redirectLocked(from, r.from, src); err != nil {
		return false, err
	}
	if !r.exchange() {
		return true, r.replaceLocked(from, to, src, dst)
	}
	if err := r.redirectLocked(to, r.to, dst); err != nil {
		return false, err
	}
	return true, r.swapLocked(from, to, src, dst)
}

// checkLoopLocked refuses to put a directory into itself, or in the place of a directory above it.
// The kernel sends neither. Preconditions: the ends are locked.
func (r *rename) checkLoopLocked(src, dst *Node) error {
	within := func(n *Node, p *Node) bool { return n != nil && n.dir != nil && (n == p || n.isAbove(p)) }
	switch {
	case within(src, r.to.parent):
		return unix.EINVAL
	case within(dst, r.from.parent) && r.exchange():
		return unix.EINVAL
	case within(dst, r.from.parent):
		return unix.ENOTEMPTY
	}
	return nil
}

// knownLocked returns the node at a place; nil: none. Preconditions: the ends are locked.
func (r *rename) knownLocked(at placed) *Node { return at.parent.dir.children[at.name] }

// replaceLocked renames src to its new name, over dst if the name has an object. Preconditions: the
// ends are locked.
func (r *rename) replaceLocked(from, to *stack.End, src, dst *Node) error {
	o := r.o
	if dst != nil {
		if dst.dir != nil {
			dst.dir.mu.Lock()
			defer dst.dir.mu.Unlock()
		}
		if err := checkVictimLocked(from, to, dst); err != nil {
			return err
		}
		if dst.lastName() {
			if err := r.victim.keepForLocked(dst, r.toDir, to.Name, &to.Found); err != nil {
				return err
			}
		}
	}
	defer dst.lockLinks()()
	if err := o.stack.Rename(from, to); err != nil {
		return err
	}
	noteRenamedLocked(from, src)
	o.linkRemovedLocked(dst)
	o.detachLocked(dst, r.to)
	delete(r.from.parent.dir.children, r.from.name)
	r.to.parent.dir.children[r.to.name] = src
	o.moveName(src, r.from, r.to)
	return nil
}

// checkVictimLocked refuses to replace a directory that shows entries, or a directory by another
// kind or the reverse. Preconditions: the ends are locked, and dst if it is a directory.
func checkVictimLocked(from, to *stack.End, dst *Node) error {
	switch {
	case from.Found.IsDir() && !to.Found.IsDir():
		return unix.ENOTDIR
	case !from.Found.IsDir() && to.Found.IsDir():
		return unix.EISDIR
	case !to.Found.IsDir():
		return nil
	}
	return dst.checkEmptyLocked()
}

// swapLocked exchanges both ends. Preconditions: the ends are locked.
func (r *rename) swapLocked(from, to *stack.End, src, dst *Node) error {
	if err := r.o.stack.Exchange(from, to); err != nil {
		return err
	}
	noteRenamedLocked(from, src)
	noteRenamedLocked(to, dst)
	r.from.parent.dir.children[r.from.name] = dst
	r.to.parent.dir.children[r.to.name] = src
	r.o.moveName(src, r.from, r.to)
	r.o.moveName(dst, r.to, r.from)
	return nil
}
