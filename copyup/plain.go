package copyup

import (
	"github.com/fuse-overlay/fuse-overlay/internal/owner"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// What follows is for commands that make objects of a layer which are no copy-ups.

// Fill copies the first size bytes of from into the empty file to, with the holes. It is no error
// if from is shorter: then a hole fills the rest.
func (c *Copier) Fill(to, from *sys.File, size int64) error {
	var st sys.Stat
	if err := from.Ref().Stat(&st); err != nil {
		return err
	}
	end, err := c.fill(to, from, &st, min(size, st.Size))
	if err != nil || end == size {
		return err
	}
	return to.Truncate(size)
}

// SetXattr sets an attribute that an object has in another layer. It ignores the errors that a
// copy-up ignores: then the object lacks the attribute.
func SetXattr(r owner.Ref, name string, value []byte) error {
	err := r.SetXattr(name, value, 0)
	if _, set := ignoredErrors(name); err != nil && isOneOf(err, set) {
		return nil
	}
	return err
}

// IsLabel reports whether an attribute is a label or hash of the kernel's security modules. The
// kernel labels objects itself.
func IsLabel(name string) bool {
	get, _ := ignoredErrors(name)
	return len(get) == len(labelErrors)
}
