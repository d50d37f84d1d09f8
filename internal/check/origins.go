package check

import (
	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/fs/stack"
	"github.com/fuse-overlay/fuse-overlay/internal/ondisk"
	"github.com/fuse-overlay/fuse-overlay/internal/quote"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// copied is an object of the upper that has an origin.
type copied struct {
	path string
	ino  uint64
}

// origin checks the origin of an object of the upper.
func (w *layerWalk) origin(o *object) {
	ns, has := o.marks[ondisk.Origin]
	if !has {
		return
	}
	if o.in == nil {
		w.rootOrigin(o, ns)
		return
	}
	h, ok, err := ns.Origin(o.ref)
	if err != nil {
		w.unreadable(o.path, err)
		return
	}
	if !ok {
		value, err := o.ref.GetXattr(o.mark(ondisk.Origin))
		if err == nil && len(value) > 0 {
			w.add(InvalidOrigin, o.path, "", w.removeMark(o, ondisk.Origin))
		}
		return
	}
	if !o.in.Impure && !w.pure[o.in.path] {
		w.pure[o.in.path] = true
		w.add(MissingImpure, o.in.path, "", w.makeImpure(o, ns))
	}
	if w.alone {
		return
	}
	w.originOf(o, h)
}

// rootOrigin notes that the first lower is another than that of earlier mounts. With an index that
// is damage, see [Checker.checkRoots].
func (w *layerWalk) rootOrigin(o *object, ns ondisk.Namespace) {
	if w.alone {
		return
	}
	if err := w.stack.HoldsRoot(ns, o.ref, stack.Upper+1); err == unix.ESTALE {
		w.add(OldRootOrigin, o.path, "", nil)
	} else if err != nil {
		w.unreadable(o.path, err)
	}
}

// originOf checks the object that an origin leads to.
func (w *layerWalk) originOf(o *object, h ondisk.Handle) {
	var st sys.Stat
	state, err := w.stack.StatByHandle(h, &st)
	if err != nil {
		w.unreadable(o.path, err)
		return
	}
	remove := w.removeMark(o, ondisk.Origin)
	switch {
	case state == stack.HandleStale:
		w.add(BrokenOrigin, o.path, "", remove)
	case state == stack.HandleForeign:
		w.add(ForeignOrigin, o.path, "", remove)
	case state == stack.HandleFound && !w.sameType(o, &st):
		w.add(OtherTypeOrigin, o.path, "", remove)
	default:
		other, seen := w.copies[h]
		if seen && other.ino != o.st.Ino {
			w.add(TwoCopies, o.path, "the other is "+quote.Path(other.path), remove)
			return
		}
		w.copies[h] = copied{o.path, o.st.Ino}
	}
}

// sameType reports whether an object and its origin are of one type. In a layer whose objects have
// their types in an attribute, inodes of two types can be one object.
func (w *layerWalk) sameType(o *object, origin *sys.Stat) bool {
	return o.st.Mode&unix.S_IFMT == origin.Mode&unix.S_IFMT || !w.stack.KeepsTypes()
}

// makeImpure returns the repair of the directory of a copy.
func (w *layerWalk) makeImpure(o *object, ns ondisk.Namespace) *Repair {
	return w.repair(o, "set "+ns.Name(ondisk.Impure), func(in *sys.Dir, _ sys.Ref) error { return ns.SetImpure(in) })
}
