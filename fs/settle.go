package fs

import (
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// settleDir gives a new directory node its st_ino: that of its topmost lower, which a copy-up does not change; the root that
// of its topmost layer (ovl_get_root).
// Precondition: renameMu R, or nobody else knows n.
func (o *Overlay) settleDir(n *Node) error {
	d := o.open(n)
	defer d.release()
	n.dir.mu.Lock()
	defer n.dir.mu.Unlock()
	from := n.dir.Top()
	if n.dir.MayMerge() || o.stack.MayBeRedirected(from) {
		if err := o.stack.Load(&n.dir.Dir, d); err != nil {
			return err
		}
	}
	switch {
	case n.parent == nil: // its topmost layer does not change while mounted
	case n.dir.MayMerge():
		from = n.dir.TopLower()
	}
	if from == int(n.layer) && n.parent != nil {
		return nil // adopt has set it
	}
	h, err := d.Layer(from)
	if err != nil {
		return err
	}
	var st sys.Stat
	if err := h.Ref().Stat(&st); err != nil {
		return err
	}
	n.ino.Store(o.numbers.Of(keyOf(&st)))
	return nil
}

// fewParts is how many parts of directories are opened and listed sooner by one alone than with the help of another.
const fewParts = 8

// settleDirs settles directories and puts what became of each into errs, which is as long. Of a merged directory every part is opened
// and listed, so where there is more to do than it takes to call somebody, two do it. Preconditions: those of settleDir.
func (o *Overlay) settleDirs(dirs []*Node, errs []error) {
	var next atomic.Int32
	work := func() {
		for {
			i := int(next.Add(1)) - 1
			if i >= len(dirs) {
				return
			}
			errs[i] = o.settleOne(dirs[i])
		}
	}
	parts := 0
	for _, n := range dirs {
		parts += len(n.dir.Layers()) // nobody else knows n
	}
	if !o.helped || len(dirs) < 2 || parts < fewParts {
		work()
		return
	}
	var helper sync.WaitGroup
	helper.Go(work)
	work()
	helper.Wait()
}

// settleOne is settleDir for a goroutine that nobody looks after.
func (o *Overlay) settleOne(n *Node) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = unix.Errno(o.panicked(v))
		}
	}()
	return o.settleDir(n)
}
