package copyup

import (
	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// origin is the attribute that says what a copy is a copy of; none without a name.
type origin struct {
	name  string
	value []byte
}

// findOrigin asks what the copy is to say of itself.
func (c *Copier) findOrigin(m *metadata) (err error) {
	if c.Origin != nil {
		m.origin.name, m.origin.value, err = c.Origin(m.src.Inode(), m.st)
	}
	return err
}

// writeOrigin writes that, before the copy gets the mode that may keep its owner from it. Where the upper does not take it
// (no attributes; attributes user.* on what is neither file nor directory) the copy is worth more, as in the kernel
// (ovl_set_origin_fh).
func (m *metadata) writeOrigin(dst sys.Ref) error {
	if m.origin.name == "" {
		return nil
	}
	switch err := dst.SetXattr(m.origin.name, m.origin.value, 0); err {
	case unix.EOPNOTSUPP, unix.EPERM:
		return nil
	default:
		return err
	}
}
