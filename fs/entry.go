package fs

import (
	"errors"

	"github.com/fuse-overlay/fuse-overlay/fs/stack"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// A change of a directory needs to know what a name means while the directory's mu is held. No call
// on a lower may be made then. So ask makes the calls before, and under the lock resolve checks
// whether the answer still counts.

// errAside is returned while a directory's mu is held. The caller then has to request something
// from a layer with no lock held, and to begin again. It never leaves this package.
var errAside = errors.New("a layer has to be asked first")

// answer is what a look-up of a name in the layers returned. An [openDir] has room for one.
type answer struct {
	view   stack.View
	sought stack.Sought
	found  stack.Found
	asked  bool
}

// ask finds out what has to be known of a name for resolve. Precondition: no directory's mu is held.
func (o *Overlay) ask(p *Node, d *openDir, name string) (err error) {
	a := &d.answer
	if err := o.lockLoaded(p, &toChange); err != nil {
		return err
	}
	a.view = o.stack.View(&p.dir.Dir)
	a.sought, a.asked = p.dir.Seek(&a.view, name), false
	inUpper := p.dir.HasUpper()
	p.dir.mu.Unlock()
	if inUpper {
		if _, err := d.upper(); err != nil {
			return err
		}
	}
	if !a.sought.Local() {
		_, err = o.stack.Ask(&a.sought, d, &a.found)
		a.asked = err == nil
	}
	return err
}

// resolve fills f with what a name means, but not with where the data of a file of the upper is; errAside: only after ask. Preconditions:
// p.dir.mu is held, d opens p.
func (o *Overlay) resolve(p *Node, d *openDir, name string, f *stack.Found) error {
	if !o.stack.Loaded(&p.dir.Dir) || p.dir.HasUpper() && !d.has(stack.Upper) {
		return errAside
	}
	d.now = o.stack.View(&p.dir.Dir)
	if q := p.dir.Seek(&d.now, name); q.Local() {
		_, err := o.stack.Glance(&q, d, f)
		return err
	}
	a := &d.answer
	if !a.asked || !a.sought.Still(&p.dir.Dir) {
		return errAside
	}
	*f = a.found
	return nil
}

// lockEntry locks p's directory and fills f as resolve does; after an error it is not locked. p is open in the upper then, if it lies
// there. Precondition: no directory's mu is held.
func (o *Overlay) lockEntry(p *Node, d *openDir, name string, f *stack.Found) error {
	for {
		p.dir.mu.Lock()
		err := o.resolve(p, d, name, f)
		if err == nil {
			return nil
		}
		p.dir.mu.Unlock()
		if err == errAside {
			err = o.ask(p, d, name)
		}
		if err != nil {
			return err
		}
	}
}

// lockTwo locks the one or two directories of a change. moves: a directory is to get another place.
// If one lies in the other, lockTwo locks the outer one first, as everywhere. Otherwise the order
// is free: movesMu is held, so no other goroutine holds two such directories and no directory
// moves.
func (o *Overlay) lockTwo(a, b *Node, moves bool) (unlock func()) {
	if a == b && !moves {
		a.dir.mu.Lock()
		return a.dir.mu.Unlock
	}
	o.movesMu.Lock()
	if b.isAbove(a) {
		a, b = b, a
	}
	a.dir.mu.Lock()
	if a != b {
		b.dir.mu.Lock()
	}
	return func() {
		if a != b {
			b.dir.mu.Unlock()
		}
		a.dir.mu.Unlock()
		o.movesMu.Unlock()
	}
}

// isAbove reports whether another directory lies in n, at any depth. Precondition: movesMu is held.
func (n *Node) isAbove(other *Node) bool {
	for at := other.place().parent; at != nil; at = at.place().parent {
		if at == n {
			return true
		}
	}
	return false
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
