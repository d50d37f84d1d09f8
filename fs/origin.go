package fs

import (
	"github.com/fuse-overlay/fuse-overlay/fs/stack"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// recall gives an object of the upper that was found the inode number of what it is a copy of, where it says so: it had that
// before its copy-up, which may have been in another mount. Preconditions: p.dir.mu held, p loaded, d opens p.
func (o *Overlay) recall(p *Node, d *openDir, name string, f *stack.Found) error {
	switch {
	case f.Layer != stack.Upper || f.IsDir():
		return nil
	case f.Shared != nil: // found by a name of the lower
		o.numbers.Recall(keyOf(&f.Stat), sharedKey(f.Shared))
		return nil
	case !p.dir.Impure():
		return nil
	case o.numbers.HasOrigin(keyOf(&f.Stat)) && !(o.stack.KeepsLinks() && manyLinks(&f.Stat)):
		return nil
	}
	var st sys.Stat
	found, err := o.stack.Origin(&p.dir.Dir, d, name, f, &st)
	if found && err == nil {
		o.numbers.Recall(keyOf(&f.Stat), keyOf(&st))
	}
	return err
}

// hasOrigin reports whether n has the inode number of an object of a lower.
func (o *Overlay) hasOrigin(n *Node) bool {
	n.mu.Lock()
	key := n.key
	n.mu.Unlock()
	return o.numbers.HasOrigin(key)
}

// origins notes which ends of a rename have an origin. For directories that is to have a lower part, as redirect tells. Precondition: renameMu W.
func (r *rename) origins(from, to *stack.End, src, dst *Node) {
	from.HasOrigin = r.o.hasOrigin(src)
	if r.exchange() {
		to.HasOrigin = r.o.hasOrigin(dst)
	}
}
