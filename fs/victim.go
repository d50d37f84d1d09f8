package fs

import (
	"github.com/fuse-overlay/fuse-overlay/fs/stack"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// victim opens an object that is about to lose its last name, because processes may still use it.
// It opens an object of the upper during the removal, and one of a lower before it with no lock
// held.
type victim struct {
	layer  int
	object *sys.Object // of that lower; nil: not opened
}

// openLower opens what a layer has under a name, if that is a lower. Preconditions: no directory's
// mu is held.
func (v *victim) openLower(d *openDir, name string, layer int) error {
	if v.object != nil || layer == stack.Upper {
		return nil
	}
	h, err := d.Layer(layer)
	if err == nil {
		v.layer = layer
		v.object, err = h.At(name).Open()
	}
	return err
}

// keepForLocked keeps the object of n open, which was found under a name of the directory that d
// opens. errNeedsLayers: openLower comes first. Preconditions: that directory's mu is held.
func (v *victim) keepForLocked(n *Node, d *openDir, name string, f *stack.Found) error {
	if f.Layer == stack.Upper {
		up, err := d.upper()
		if err != nil {
			return err
		}
		object, err := up.At(name).Open()
		if err == nil {
			d.a.keepObject(n, object)
		}
		return err
	}
	if v.object == nil || v.layer != f.Layer {
		return errNeedsLayers
	}
	d.a.keepObject(n, v.object)
	v.object = nil
	return nil
}

func (v *victim) close() {
	if v.object != nil {
		v.object.Close()
	}
}
