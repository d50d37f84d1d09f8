package copyup

import (
	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// keptFlags are the inode flags that a copy has as well. The kernel keeps them too, except for FlagNodump (ovl_copy_fileattr).
// FlagImmutable and FlagAppend become a mark, see [Copier].
const keptFlags = sys.FlagSync | sys.FlagNoatime | sys.FlagNodump

// noFlags are the errors of a file system that has no inode flags, and of a source or copy that the daemon may not open. The
// copy is worth more than its flags.
var noFlags = []unix.Errno{
	unix.ENOTTY, unix.EINVAL, unix.EOPNOTSUPP, unix.ENOSYS, unix.EACCES, unix.EPERM, unix.ENXIO,
}

// findFlags reads the inode flags of the source. Only regular files and directories have any.
func (m *metadata) findFlags() (err error) {
	switch m.st.Mode & unix.S_IFMT {
	case unix.S_IFREG, unix.S_IFDIR:
		m.flags, err = m.src.Inode().InodeFlags()
	}
	if err != nil && passes(err, noFlags) {
		m.flags, err = 0, nil
	}
	return err
}

// copyFlags gives the copy the flags that it keeps. The others are those that the upper's file system has chosen.
func (m *metadata) copyFlags() error {
	if m.flags&keptFlags == 0 {
		return nil
	}
	dst := m.dst.Inode()
	flags, err := dst.InodeFlags()
	if err == nil {
		err = dst.SetInodeFlags(flags | m.flags&keptFlags)
	}
	if err != nil && passes(err, noFlags) {
		return nil
	}
	return err
}
