package fs

import (
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/fs/stack"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
	"github.com/fuse-overlay/fuse-overlay/whiteout"
)

// renameTries bounds how often a rename or removal starts over because an object went elsewhere between its copy-up and the change.
const renameTries = 16

// Rename answers RENAME and RENAME2 with NOREPLACE or EXCHANGE.
func (o *Overlay) Rename(_ <-chan struct{}, in *fuse.RenameIn, oldName, newName string) fuse.Status {
	o.counts.add(opRename)
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
}

func (r *rename) exchange() bool { return r.flags&unix.RENAME_EXCHANGE != 0 }

// try copies up what must be in the upper, with nothing held, and then renames. done is false when the tree changed in
// between so that it must be looked at anew.
func (r *rename) try() (done bool, err error) {
	o := r.o
	if err := r.mayChangeDirs(); err != nil {
		return false, err
	}
	src, err := r.prepare(r.from)
	if err != nil {
		return false, err
	}
	defer o.forgetOne(src)
	up := []*Node{r.from.parent, r.to.parent, src}
	if r.exchange() {
		dst, err := r.prepare(r.to)
		if err != nil {
			return false, err
		}
		defer o.forgetOne(dst)
		up = append(up, dst)
	} else {
		victim, err := r.victim(src)
		if victim != nil {
			defer o.forgetOne(victim)
		}
		if err == nil && victim != nil && r.flags&unix.RENAME_NOREPLACE != 0 {
			err = unix.EEXIST
		}
		if err != nil {
			return false, err
		}
	}
	for _, n := range up {
		if err := o.copyUp(n, noData); err != nil {
			return false, err
		}
	}
	for _, end := range []placed{r.from, r.to} {
		if err := o.shareName(end); err != nil {
			return false, err
		}
	}
	o.renameMu.Lock()
	defer o.renameMu.Unlock()
	return r.locked()
}

// mayChangeDirs reports EPERM if one of the directories may not lose or get an entry.
func (r *rename) mayChangeDirs() error {
	if err := r.o.mayChange(r.from.parent); err != nil {
		return err
	}
	if r.exchange() {
		return r.o.mayChange(r.to.parent)
	}
	return r.o.mayAddEntry(r.to.parent)
}

// mayReplace reports EPERM if the entry n of the new directory must stay there. Precondition: renameMu R.
func (r *rename) mayReplace(n *Node) error {
	for _, n := range []*Node{r.to.parent, n} {
		protection, err := r.o.protectionLocked(n)
		if err := cannot(protection, immutable|appendOnly, err); err != nil {
			return err
		}
	}
	return nil
}

// prepare returns the node of an end that is to be moved, with a reference: without redirects a directory with a lower part
// cannot be moved but by copying it whole, which is left to the caller's program (EXDEV, as the kernel's overlayfs).
func (r *rename) prepare(end placed) (*Node, error) {
	o := r.o
	o.renameMu.RLock()
	defer o.renameMu.RUnlock()
	var st sys.Stat
	n, err := o.child(end.parent, end.name, &st)
	if err != nil {
		return nil, err
	}
	if n == nil {
		return nil, unix.ENOENT
	}
	protection, err := o.protectionLocked(n)
	err = cannot(protection, immutable|appendOnly, err)
	if err == nil && n.dir != nil {
		d := o.open(n)
		defer d.release()
		n.dir.mu.Lock()
		err = o.stack.Load(&n.dir.Dir, d)
		if err == nil && n.dir.HasLower() && !o.stack.WritesRedirects() {
			err = unix.EXDEV
		}
		n.dir.mu.Unlock()
	}
	if err != nil {
		o.unref(n)
		return nil, err
	}
	return n, nil
}

// victim returns the node that the rename replaces, with a reference; nil when there is none. A directory that shows an
// entry is an error before anything is copied up.
func (r *rename) victim(src *Node) (*Node, error) {
	o := r.o
	o.renameMu.RLock()
	defer o.renameMu.RUnlock()
	var st sys.Stat
	n, err := o.child(r.to.parent, r.to.name, &st)
	if err != nil || n == nil || n == src {
		return n, err
	}
	if err := r.mayReplace(n); err != nil || n.dir == nil || src.dir == nil {
		return n, err
	}
	n.dir.mu.Lock()
	defer n.dir.mu.Unlock()
	return n, o.checkEmpty(n)
}

// end opens one end. The release function is to be called after use. Precondition: renameMu W.
func (r *rename) end(at placed) (*stack.End, func(), error) {
	o := r.o
	d := o.open(at.parent)
	e := &stack.End{Dir: &at.parent.dir.Dir, Name: at.name}
	err := o.stack.Load(e.Dir, d)
	if err == nil {
		err = o.stack.Lookup(e.Dir, d, at.name, &e.Found)
	}
	if err == nil {
		e.Up, err = d.upper()
	}
	if err != nil {
		d.release()
		return nil, nil, err
	}
	return e, d.release, nil
}

// locked checks and renames. Precondition: renameMu W.
func (r *rename) locked() (done bool, err error) {
	from, releaseFrom, err := r.end(r.from)
	if err != nil {
		return false, err
	}
	defer releaseFrom()
	to, releaseTo, err := r.end(r.to)
	if err != nil {
		return false, err
	}
	defer releaseTo()
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
	src, dst := r.known(r.from), r.known(r.to)
	if src == nil || dst == nil && to.Found.Exists() {
		return false, nil
	}
	if src == dst {
		return true, nil // two names of one object: nothing to do, says POSIX
	}
	r.origins(from, to, src, dst)
	if err := r.redirect(from, r.from, src); err != nil {
		return false, err
	}
	if !r.exchange() {
		return true, r.replace(from, to, src, dst)
	}
	if err := r.redirect(to, r.to, dst); err != nil {
		return false, err
	}
	return true, r.swap(from, to, src, dst)
}

// redirect settles what a directory with a lower part is to say of it after the rename (ovl_set_redirect). Precondition:
// renameMu W.
func (r *rename) redirect(end *stack.End, at placed, n *Node) error {
	if n.dir == nil {
		return r.redirectData(end, at, n)
	}
	d := r.o.open(n)
	defer d.release()
	if err := r.o.stack.Load(&n.dir.Dir, d); err != nil || !n.dir.HasLower() {
		return err
	}
	var err error
	end.Merged = true
	end.Redirect, err = r.redirectFor(at, n)
	return err
}

// redirectFor is the redirect that a directory with a lower part needs for the rename; empty where it has one that will do.
// EXDEV where none is written, or it is too long to be kept. Precondition: renameMu W, n is loaded.
func (r *rename) redirectFor(at placed, n *Node) (redirect string, err error) {
	if !r.o.stack.WritesRedirects() {
		return "", unix.EXDEV
	}
	beside, has := r.from.parent == r.to.parent, n.dir.Redirect()
	switch {
	case has != "" && (beside || has[0] == '/'):
		return "", nil
	case beside:
		redirect = at.name
	default:
		redirect = n.pathBelow()
	}
	if len(redirect) > whiteout.MaxRedirect {
		return "", unix.EXDEV
	}
	return redirect, nil
}

// renamed notes where the lower parts of a directory, or the data of a file, lie that gets another name. Precondition: renameMu
// W, which no reader of paths shares.
func renamed(end *stack.End, n *Node) {
	switch {
	case end.Merged:
		n.dir.Renamed(end.Redirect, n.pathIn)
	case end.Redirect != "":
		n.redirected(end.Redirect)
	}
}

// known is the node at a place, if there is one. Precondition: renameMu W.
func (r *rename) known(at placed) *Node { return at.parent.dir.children[at.name] }

// replace renames src to its new name, over dst if that is there. Precondition: renameMu W.
func (r *rename) replace(from, to *stack.End, src, dst *Node) error {
	o := r.o
	if to.Found.Exists() {
		if err := r.checkVictim(from, to, dst); err != nil {
			return err
		}
		if dst.lastName() {
			d := o.open(r.to.parent)
			err := o.keepOpen(dst, d, &to.Found, to.Name)
			d.release()
			if err != nil {
				return err
			}
		}
	}
	if err := o.stack.Rename(from, to); err != nil {
		return err
	}
	renamed(from, src)
	o.linkRemoved(dst)
	o.detach(dst, r.to)
	delete(r.from.parent.dir.children, r.from.name)
	r.to.parent.dir.children[r.to.name] = src
	src.moveName(r.from, r.to)
	return nil
}

// checkVictim refuses to replace a directory that shows entries, or one kind by the other. Precondition: renameMu W.
func (r *rename) checkVictim(from, to *stack.End, dst *Node) error {
	switch {
	case from.Found.IsDir() && !to.Found.IsDir():
		return unix.ENOTDIR
	case !from.Found.IsDir() && to.Found.IsDir():
		return unix.EISDIR
	case !to.Found.IsDir():
		return nil
	}
	return r.o.checkEmpty(dst)
}

// swap exchanges both ends. Precondition: renameMu W.
func (r *rename) swap(from, to *stack.End, src, dst *Node) error {
	if err := r.o.stack.Exchange(from, to); err != nil {
		return err
	}
	renamed(from, src)
	renamed(to, dst)
	r.from.parent.dir.children[r.from.name] = dst
	r.to.parent.dir.children[r.to.name] = src
	src.moveName(r.from, r.to)
	dst.moveName(r.to, r.from)
	return nil
}
