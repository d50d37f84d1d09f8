package fs

import (
	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/fs/stack"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// settleDir gives a new directory node its st_ino: that of its topmost lower, which a copy-up does not change; the root that
// of its topmost layer (ovl_get_root).
// Precondition: no other goroutine has a reference to n.
func (o *Overlay) settleDir(n *Node) error {
	d := o.open(n)
	defer d.release()
	// Without n.dir.mu: no other goroutine needs it, and to open n in the upper may take movesMu, which is outside of it.
	from := n.dir.Top()
	if n.dir.MayMerge() || o.stack.MayBeRedirected(from) {
		if err := o.stack.Load(&n.dir.Dir, d, stack.ToLookUp); err != nil {
			return err
		}
	}
	switch {
	case n.parent == nil: // its topmost layer does not change while mounted
	case n.dir.MayMerge():
		from = n.dir.TopLower()
	}
	if from != int(n.layer) || n.parent == nil { // else adopt has set it
		h, err := d.Layer(from)
		if err != nil {
			return err
		}
		var st sys.Stat
		if err := h.Ref().Stat(&st); err != nil {
			return err
		}
		o.releaseNumber(n, true) // tellApart may have claimed the one that n had until now
		n.ino.Store(o.numbers.Of(keyOf(&st)))
	}
	if n.dir.Moved() {
		o.tellApart()
	}
	o.claimNumber(n)
	return nil
}

// settleOne is settleDir by what has been read of n's parts, if anything, for a goroutine that nobody looks after.
func (o *Overlay) settleOne(n *Node, read []stack.Contents) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = unix.Errno(o.conn.Panicked(v))
		}
	}()
	if read != nil && !o.stack.Merge(&n.dir.Dir, read) {
		// settleDir finds out why, and may be led elsewhere by a redirect: not to what has been opened by the directory's own name.
		for _, layer := range n.dir.Layers() {
			o.handles.Evict(n.handleKey(int(layer), useDir))
		}
	}
	return o.settleDir(n)
}
