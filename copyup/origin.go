package copyup

import (
	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// findOrigin sets m.origin.
func (c *Copier) findOrigin(m *metadata) (err error) {
	if c.Origin != nil {
		m.origin, err = c.Origin(m.src.Inode(), m.st)
	}
	return err
}

// writeOrigin sets the attribute on the copy, before the copy gets a mode that may forbid it. It
// returns nil if the object cannot have the attribute, as the kernel does (ovl_set_origin_fh): the
// upper may have no extended attributes, or user.* on regular files and directories only.
func (m *metadata) writeOrigin(dst sys.Ref) error {
	if m.origin.Name == "" {
		return nil
	}
	switch err := dst.SetXattr(m.origin.Name, m.origin.Value, 0); err {
	case unix.EOPNOTSUPP, unix.EPERM:
		return nil
	default:
		return err
	}
}
