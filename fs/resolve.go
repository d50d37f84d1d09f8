package fs

import (
	"errors"

	"github.com/fuse-overlay/fuse-overlay/fs/stack"
)

// A change of a directory needs to know what a name means while the directory's mu is held. No call
// on a lower may be made then. So askLowers makes the calls before, and under the lock
// resolveLocked checks whether the answer is still valid.

// errNeedsLayers is returned while a directory's mu is held. The caller then calls layers with no
// lock held, and begins again. It never leaves this package.
var errNeedsLayers = errors.New("layers have to be read with no lock held")

// answer is what a lookup of a name in the layers returned. An [openDir] has memory for one.
type answer struct {
	query stack.Query
	found stack.Found
}

// askLowers calls the lowers for what resolveLocked has to know of a name. Preconditions: no
// directory's mu is held.
func (a *access) askLowers(p *Node, d *openDir, name string) (err error) {
	ans := &d.answer
	ans.query = stack.Query{Name: name, Use: stack.ToChange}
	for {
		p.dir.mu.Lock()
		need := a.stack.Needs(&ans.query, &p.dir.Dir, d)
		p.dir.mu.Unlock()
		switch need {
		case stack.NeedLoad:
			err = a.load(p, ans.query.Use)
		case stack.NeedUpper:
			_, err = d.upper()
		case stack.NeedLayers:
			return a.stack.LookUpInLayers(&ans.query, d, &ans.found)
		default:
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// resolveLocked fills f with what a name means, but not with where the data of a file of the upper
// is; errNeedsLayers: askLowers comes first. Preconditions: p.dir.mu is held, d opens p.
func (a *access) resolveLocked(p *Node, d *openDir, name string, f *stack.Found) error {
	ans := &d.answer
	if ans.query.Name != name {
		ans.query = stack.Query{Name: name, Use: stack.ToChange}
	}
	need, err := a.stack.Resolve(&ans.query, &p.dir.Dir, d, &ans.found)
	if err == nil && !need.Resolved() {
		err = errNeedsLayers
	}
	if err == nil {
		*f = ans.found
	}
	return err
}

// lockEntry locks p's directory and fills f as resolveLocked does. Then p is open in the upper, if
// it lies there. After an error p is not locked. Preconditions: no directory's mu is held.
func (a *access) lockEntry(p *Node, d *openDir, name string, f *stack.Found) error {
	for {
		p.dir.mu.Lock()
		err := a.resolveLocked(p, d, name, f)
		if err == nil {
			return nil
		}
		p.dir.mu.Unlock()
		if err == errNeedsLayers {
			err = a.askLowers(p, d, name)
		}
		if err != nil {
			return err
		}
	}
}
