package fs

import (
	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/fs/stack"
	"github.com/fuse-overlay/fuse-overlay/internal/owner"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// object is an object of a layer in use.
type object struct {
	owner.Ref
	dir *openDir // nil: reached without a directory
}

func (r *object) release() {
	if r.dir != nil {
		r.dir.release()
	}
}

// refTo refers to an object just made in up: by its file if it has one, which saves a walk through
// the directory.
func refTo(up *sys.Dir, name string, file *sys.File) sys.Ref {
	if file != nil {
		return file.Ref()
	}
	return up.At(name)
}

// cachedObject returns n's object in the upper by a cached descriptor of a directory, or of a file
// opened for writing. The caller releases the handle; nil: there is none. A call by descriptor
// takes half as long as one by name.
func (a *access) cachedObject(n *Node) (r owner.Ref, h *held) {
	if !n.flags.has(flagHasHandle) || !n.inUpper() {
		return r, nil
	}
	u := forWriting
	if n.dir != nil {
		u = forDir
	}
	if h = a.handles.Acquire(n.handleKey(stack.Upper, u)); h == nil {
		return r, nil
	}
	var at sys.Ref
	switch dir := h.Value.dir; {
	case dir == nil:
		at = h.Value.file.Ref()
	case dir.SearchOnly():
		a.handles.Release(h)
		return r, nil
	default:
		at = dir.Ref()
	}
	return a.stack.Shown(stack.Upper, at), h
}

// object returns the object that lies at p, which other requests may move or remove meanwhile.
func (a *access) object(p *place) (object, error) {
	if p.unlinked {
		if p.object == nil { // lost, and no descriptor led to it
			return object{}, unix.ESTALE
		}
		return object{Ref: a.stack.Shown(p.layer, p.object.Ref())}, nil
	}
	if p.parent == nil {
		return object{Ref: a.stack.Shown(p.layer, a.stack.Root(p.layer).Ref())}, nil
	}
	if p.shared != nil && p.layer == stack.Upper { // its name may be a lower's alone
		return object{Ref: a.stack.Shown(stack.Upper, a.stack.Copy(p.shared))}, nil
	}
	d := a.openDir(p.parent)
	h, err := d.Layer(p.layer)
	if err != nil {
		d.release()
		return object{}, err
	}
	if p.part != (stack.Part{}) {
		if err := p.check(h.At(p.name)); err != nil {
			d.release()
			return object{}, err
		}
	}
	return object{a.stack.Shown(p.layer, h.At(p.name)), d}, nil
}

// at calls f on n's object at p. there is false if n does not lie there: then the call of f, if
// any, does not count. In a directory of the upper the name cannot become another object's before f
// returns. A lower's object does not change. Preconditions: no directory's mu is held.
func (a *access) at(n *Node, p *place, f func(owner.Ref) error) (there bool, err error) {
	if !p.inUpperDir() {
		r, err := a.object(p)
		if err == nil {
			err = f(r.Ref)
			r.release()
		}
		return n.place() == *p, err
	}
	d := a.openDir(p.parent)
	defer d.release()
	up, err := d.upper()
	p.parent.dir.mu.Lock()
	defer p.parent.dir.mu.Unlock()
	if n.place() != *p {
		return false, nil
	}
	if err == nil && p.part != (stack.Part{}) {
		err = p.check(up.At(p.name))
	}
	if err == nil {
		err = f(a.stack.Shown(stack.Upper, up.At(p.name)))
	}
	return true, err
}

// with calls f on n's object, and again if the object was no longer there (a copy-up, a removal).
// Preconditions: no directory's mu is held.
func (a *access) with(n *Node, f func(owner.Ref) error) error {
	if r, h := a.cachedObject(n); h != nil {
		defer a.handles.Release(h)
		return f(r)
	}
	for {
		p := n.place()
		there, err := a.at(n, &p, f)
		if !a.lostName(n, &p, err) && there {
			return err
		}
	}
}

// change copies n up without its data, and calls f on its object. f must not change data.
func (o *Overlay) change(n *Node, f func(owner.Ref) error) error {
	if err := o.copyUpMetadata(n); err != nil {
		return err
	}
	return o.with(n, f)
}
