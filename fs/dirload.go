package fs

import (
	"github.com/fuse-overlay/fuse-overlay/fs/stack"
)

// loading is how much is to be known of a directory. It is a step of [stack.Stack] and the question whether it has been done.
type loading struct {
	load func(*stack.Stack, *stack.Dir, stack.Opened) error
	done func(*stack.Stack, *stack.Dir) bool
}

var (
	toLook   = loading{(*stack.Stack).LoadToLook, (*stack.Stack).ReadyToLook}
	toChange = loading{(*stack.Stack).Load, (*stack.Stack).Loaded}
	toList   = loading{(*stack.Stack).Index, func(_ *stack.Stack, d *stack.Dir) bool { return d.Indexed() }}
	listAnew = loading{(*stack.Stack).ListAnew, func(*stack.Stack, *stack.Dir) bool { return false }}
)

// lockListed is lockLoaded for a listing that begins now: where layers change, the directory is listed once more.
func (o *Overlay) lockListed(n *Node) error {
	if o.cfg.LayersChange {
		if err := o.load(n, &listAnew); err != nil {
			return err
		}
	}
	return o.lockLoaded(n, &toList)
}

// lockLoaded locks n's directory as soon as so much is known of it; after an error it is not locked. Precondition: no directory's mu
// is held.
func (o *Overlay) lockLoaded(n *Node, much *loading) error {
	for {
		n.dir.mu.Lock()
		if much.done(o.stack, &n.dir.Dir) {
			return nil
		}
		n.dir.mu.Unlock()
		if err := o.load(n, much); err != nil {
			return err
		}
	}
}

// load finds out about n's directory. Others use the directory meanwhile, unless all that is to be known is in the upper.
// Precondition: no directory's mu is held.
func (o *Overlay) load(n *Node, much *loading) error {
	dir := n.dir
	dir.loadMu.Lock()
	defer dir.loadMu.Unlock()
	d := o.open(n)
	defer d.release()
	dir.mu.Lock()
	for much != &listAnew && dir.OnlyUpper() && !d.has(stack.Upper) {
		dir.mu.Unlock()
		if _, err := d.upper(); err != nil {
			return err
		}
		dir.mu.Lock()
	}
	switch {
	case much.done(o.stack, &dir.Dir):
		dir.mu.Unlock()
		return nil
	case much != &listAnew && dir.OnlyUpper(): // what is made in it meanwhile would be missed
		defer dir.mu.Unlock()
		return much.load(o.stack, &dir.Dir, d)
	}
	loaded := dir.Aside()
	dir.mu.Unlock()
	d.aside = &loaded
	err := much.load(o.stack, &loaded, d)
	dir.mu.Lock()
	defer dir.mu.Unlock()
	n.mu.Lock() // guards where the directory lies
	defer n.mu.Unlock()
	if err != nil {
		if !dir.Adopt(nil) {
			err = nil // it lies in the upper as well by now
		}
		return err
	}
	dir.Adopt(&loaded)
	return nil
}
