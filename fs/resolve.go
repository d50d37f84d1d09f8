package fs

import (
	"errors"

	"github.com/fuse-overlay/fuse-overlay/fs/stack"
)

// A change of a directory needs to know what a name means while the directory's mu is held. No call
// on a lower may be made then. So ask makes the calls before, and under the lock resolve checks
// whether the answer still counts.

// errAside is returned while a directory's mu is held. The caller then has to request something
// from a layer with no lock held, and to begin again. It never leaves this package.
var errAside = errors.New("a layer has to be asked first")

// answer is what a look-up of a name in the layers returned. An [openDir] has room for one.
type answer struct {
	query stack.Query
	found stack.Found
}

// ask finds out what has to be known of a name for resolve. Precondition: no directory's mu is held.
func (o *Overlay) ask(p *Node, d *openDir, name string) (err error) {
	a := &d.answer
	a.query = stack.Query{Name: name, Use: stack.ToChange}
	for {
		p.dir.mu.Lock()
		need := o.stack.Needs(&a.query, &p.dir.Dir, d)
		p.dir.mu.Unlock()
		switch need {
		case stack.NeedLoad:
			err = o.load(p, a.query.Use)
		case stack.NeedUpper:
			_, err = d.upper()
		case stack.NeedLayers:
			return o.stack.LookUpInLayers(&a.query, d, &a.found)
		default:
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// resolve fills f with what a name means, but not with where the data of a file of the upper is; errAside: only after ask. Preconditions:
// p.dir.mu is held, d opens p.
func (o *Overlay) resolve(p *Node, d *openDir, name string, f *stack.Found) error {
	a := &d.answer
	if a.query.Name != name {
		a.query = stack.Query{Name: name, Use: stack.ToChange}
	}
	need, err := o.stack.Resolve(&a.query, &p.dir.Dir, d, &a.found)
	if err == nil && !need.Resolved() {
		err = errAside
	}
	if err == nil {
		*f = a.found
	}
	return err
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
