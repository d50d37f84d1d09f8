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

// refTo is what has just been made in up: by its file where it has one, which spares the way through the directory.
func refTo(up *sys.Dir, name string, file *sys.File) sys.Ref {
	if file != nil {
		return file.Ref()
	}
	return up.At(name)
}

// opened returns n's object in the upper by a descriptor that is there already, a directory's or what writing to a file has left,
// to be released with the handle: that takes half as long as by its name. A nil handle: there is none.
func (o *Overlay) opened(n *Node) (r owner.Ref, h *held) {
	if n.flags.Load()&handled == 0 || !n.inUpper() {
		return r, nil
	}
	u := useWrite
	if n.dir != nil {
		u = useDir
	}
	if h = o.handles.Acquire(n.handleKey(stack.Upper, u)); h == nil {
		return r, nil
	}
	var at sys.Ref
	switch dir := h.Value.dir; {
	case dir == nil:
		at = h.Value.file.Ref()
	case dir.SearchOnly():
		o.handles.Release(h)
		return r, nil
	default:
		at = dir.Ref()
	}
	return o.stack.Shown(stack.Upper, at), h
}

// object finds the object that lies at p, which others may move or remove meanwhile.
func (o *Overlay) object(p *place) (object, error) {
	if p.gone {
		if p.kept == nil { // lost, and nothing of it was open
			return object{}, unix.ESTALE
		}
		return object{Ref: o.stack.Shown(p.layer, p.kept.Ref())}, nil
	}
	if p.parent == nil {
		return object{Ref: o.stack.Shown(p.layer, o.stack.Root(p.layer).Ref())}, nil
	}
	if p.shared != nil && p.layer == stack.Upper { // its name may be a lower's alone
		return object{Ref: o.stack.Shown(stack.Upper, o.stack.Copy(p.shared))}, nil
	}
	d := o.open(p.parent)
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
	return object{o.stack.Shown(p.layer, h.At(p.name)), d}, nil
}

// at calls f on n's object at p. there is false if n does not lie there: then f has been called in vain, if at all. In a directory of
// the upper the name cannot become another object's before f returns. A lower's object stays what it is. Precondition: no
// directory's mu is held.
func (o *Overlay) at(n *Node, p *place, f func(owner.Ref) error) (there bool, err error) {
	if !p.inUpperDir() {
		r, err := o.object(p)
		if err == nil {
			err = f(r.Ref)
			r.release()
		}
		return n.place() == *p, err
	}
	d := o.open(p.parent)
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
		err = f(o.stack.Shown(stack.Upper, up.At(p.name)))
	}
	return true, err
}

// with calls f on n's object, and again when the object was no longer there (a copy-up, a removal). Precondition: no directory's mu
// is held.
func (o *Overlay) with(n *Node, f func(owner.Ref) error) error {
	if r, h := o.opened(n); h != nil {
		defer o.handles.Release(h)
		return f(r)
	}
	for {
		p := n.place()
		there, err := o.at(n, &p, f)
		if !o.lost(n, &p, err) && there {
			return err
		}
	}
}

// change calls f, which leaves data alone, on n's object in the upper, copying it up first.
func (o *Overlay) change(n *Node, f func(owner.Ref) error) error {
	if err := o.copyUp(n, noData); err != nil {
		return err
	}
	return o.with(n, f)
}
