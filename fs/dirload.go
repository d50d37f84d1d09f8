package fs

import (
	"github.com/fuse-overlay/fuse-overlay/fs/stack"
)

// lockListed is lockLoaded for a listing that begins now. If layers change, it lists the directory
// once more.
func (a *access) lockListed(n *Node) error {
	if a.layersChange {
		if err := a.load(n, stack.ToListAnew); err != nil {
			return err
		}
	}
	return a.lockLoaded(n, stack.ToList)
}

// lockLoaded locks n's directory once it is loaded for a use. After an error it is not locked.
// Preconditions: no directory's mu is held.
func (a *access) lockLoaded(n *Node, use stack.Use) error {
	for {
		n.dir.mu.Lock()
		if a.stack.Loaded(&n.dir.Dir, use) {
			return nil
		}
		n.dir.mu.Unlock()
		if err := a.load(n, use); err != nil {
			return err
		}
	}
}

// load loads n's directory for a use. Other requests use the directory meanwhile, unless all that
// is read lies in the upper. Preconditions: no directory's mu is held.
func (a *access) load(n *Node, use stack.Use) error {
	dir := n.dir
	dir.loadMu.Lock()
	defer dir.loadMu.Unlock()
	d := a.openDir(n)
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
	case a.stack.Loaded(&dir.Dir, use):
		dir.mu.Unlock()
		return nil
	case use != stack.ToListAnew && dir.OnlyUpper(): // what is made in it meanwhile would be missed
		defer dir.mu.Unlock()
		a.dirLoads.Add(1)
		err := a.stack.Load(&dir.Dir, d, use)
		a.countNames(n)
		a.journal.saveLayers(n)
		return err
	}
	a.dirLoads.Add(1)
	loaded := dir.Aside()
	dir.mu.Unlock()
	d.aside = &loaded
	err := a.stack.Load(&loaded, d, use)
	dir.mu.Lock()
	defer dir.mu.Unlock()
	n.mu.Lock() // guards where the directory lies
	defer n.mu.Unlock()
	if err != nil {
		if !dir.Adopt(nil) {
			err = nil // it lies in the upper as well now
		}
		return err
	}
	dir.Adopt(&loaded)
	a.countNames(n)
	a.journal.saveLayersLocked(n)
	return nil
}
