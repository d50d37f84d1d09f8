package fs

import (
	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/fs/stack"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// initDirInode gives a new directory node its st_ino: that of its topmost lower, which a copy-up
// does not change. The root gets that of its topmost layer (ovl_get_root). Preconditions: no other
// goroutine has a reference to n.
func (t *tree) initDirInode(n *Node) error {
	d := t.openDir(n)
	defer d.release()
	// Without n.dir.mu: no other goroutine needs it. To open n in the upper may take movesMu, which
	// comes before it.
	from := n.dir.Top()
	if n.dir.MayMerge() || t.stack.MayBeRedirected(from) {
		t.dirLoads.Add(1)
		if err := t.stack.Load(&n.dir.Dir, d, stack.ToLookUp); err != nil {
			return err
		}
		t.countNames(n)
	}
	switch {
	case n.parent == nil: // its topmost layer does not change while mounted
	case n.dir.MayMerge():
		from = n.dir.TopLower()
	}
	if from != int(n.layer) || n.parent == nil { // otherwise newNode has set it
		h, err := d.Layer(from)
		if err != nil {
			return err
		}
		var st sys.Stat
		if err := h.Ref().Stat(&st); err != nil {
			return err
		}
		t.numbers.revoke(n) // requireUnique may have claimed the one that n had until now
		n.ino.Store(t.numbers.Of(keyOf(&st)))
	}
	if n.dir.Moved() {
		t.numbers.requireUnique()
	}
	t.numbers.claim(n)
	t.journal.saveLayers(n)
	return nil
}

// initDir is initDirInode with what has been read of n's parts, if anything. It turns a panic into
// an error.
func (o *Overlay) initDir(n *Node, read []stack.Contents) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = unix.Errno(o.conn.Panicked(v))
		}
	}()
	if read != nil && !o.stack.Merge(&n.dir.Dir, read) {
		// initDirInode finds out why. A redirect may lead it elsewhere, not to what has been opened by
		// the directory's own name.
		for _, layer := range n.dir.Layers() {
			o.handles.Evict(n.handleKey(int(layer), forDir))
		}
	}
	return o.initDirInode(n)
}
