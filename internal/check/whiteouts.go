package check

import (
	"path"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/sys"
	"github.com/fuse-overlay/fuse-overlay/whiteout"
)

// marker checks an object with the name of a marker.
func (w *layerWalk) marker(o *object) error {
	if !w.read(o) {
		return nil
	}
	hidden, hides := whiteout.Hidden(o.name)
	switch {
	case !o.isEmptyFile() && !whiteout.IsDevice(&o.st):
		w.add(DataUnderMarker, o.path, "", nil)
	case o.name == whiteout.OpaqueMarker, o.name == whiteout.OlderOpaqueMarker && o.in.Opaque:
	case !hides:
		w.add(ForeignMarker, o.path, "", w.unlink(o))
	case o.in.objects[hidden]:
		w.add(MarkerBeside, o.path, "", nil)
	default:
		return w.whiteout(o, hidden)
	}
	return nil
}

// whiteout checks a whiteout of any form, by what it hides.
func (w *layerWalk) whiteout(o *object, name string) error {
	if w.alone {
		return nil
	}
	hides, err := w.belowHas(o.in, name)
	switch {
	case hides || err != nil:
		return err
	case w.at == w.layers()-1:
		w.add(LowestWhiteout, o.path, "", nil)
	case w.isUpper() && !o.in.lower.IsDir():
		w.add(OrphanWhiteout, o.path, "", w.unlink(o))
	default: // fuse-overlayfs leaves one for each directory that is removed
		w.add(UselessWhiteout, o.path, "", w.unlink(o))
	}
	return nil
}

// uselessOpaque notes an opaque directory that hides nothing.
func (w *layerWalk) uselessOpaque(d *dir) error {
	if !w.notes || w.alone || d.parent == nil || !d.Opaque {
		return nil
	}
	hides, err := w.belowHas(d.parent, path.Base(d.path))
	if !hides && err == nil {
		w.add(UselessOpaque, d.path, "", nil)
	}
	return err
}

// unlink returns the repair that removes an empty object without a meaning.
func (w *layerWalk) unlink(o *object) *Repair {
	was := o.st
	return w.repair(o, "remove the name", func(in *sys.Dir, r sys.Ref) error {
		var st, parent sys.Stat
		if err := r.Stat(&st); err != nil {
			return err
		}
		if st.Dev != was.Dev || st.Ino != was.Ino || st.Size != was.Size {
			return unix.ESTALE
		}
		if err := in.Ref().Stat(&parent); err != nil {
			return err
		}
		if err := in.Unlink(o.name); err != nil {
			return err
		}
		return in.Ref().Utimes(parent.Atim, parent.Mtim) // the merged tree has not changed
	})
}
