package fs

import (
	"github.com/fuse-overlay/fuse-overlay/fs/stack"
)

// lockListed is lockLoaded for a listing that begins now: where layers change, the directory is listed once more.
func (o *Overlay) lockListed(n *Node) error {
	if o.cfg.LayersChange {
		if err := o.load(n, stack.ToListAnew); err != nil {
			return err
		}
	}
	return o.lockLoaded(n, stack.ToList)
}

// lockLoaded locks n's directory once it is loaded for a use; after an error it is not locked. Precondition: no directory's mu is held.
func (o *Overlay) lockLoaded(n *Node, use stack.Use) error {
	for {
		n.dir.mu.Lock()
		if o.stack.Loaded(&n.dir.Dir, use) {
			return nil
		}
		n.dir.mu.Unlock()
		if err := o.load(n, use); err != nil {
			return err
		}
	}
}

// load loads n's directory for a use. Others use the directory meanwhile, unless all that is to be known is in the upper.
// Precondition: no directory's mu is held.
func (o *Overlay) load(n *Node, use stack.Use) error {
	dir := n.dir
	dir.loadMu.Lock()
	defer dir.loadMu.Unlock()
	d := o.open(n)
	defer d.release()
	dir.mu.Lock()
	for use != stack.ToListAnew && dir.OnlyUpper() && !d.Has(stack.Upper) {
		dir.mu.Unlock()
		if _, err := d.upper(); err != nil {
			return err
		}
		dir.mu.Lock()
	}
	switch {
	case o.stack.Loaded(&dir.Dir, use):
		dir.mu.Unlock()
		return nil
	case use != stack.ToListAnew && dir.OnlyUpper(): // what is made in it meanwhile would be missed
		defer dir.mu.Unlock()
		return o.stack.Load(&dir.Dir, d, use)
	}
	loaded := dir.Aside()
	dir.mu.Unlock()
	d.aside = &loaded
	err := o.stack.Load(&loaded, d, use)
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
