package copyup

import (
	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// copiedFlags are the inode flags of the source that its copy gets. The kernel copies them too,
// except for FlagNodump (ovl_copy_fileattr). For FlagImmutable and FlagAppend the copy gets an
// extended attribute, see [Copier].
const copiedFlags = sys.FlagSync | sys.FlagNoatime | sys.FlagNodump

// noFlagErrors are the errors of a file system that has no inode flags, and of a source or copy
// that the daemon may not open. The copy then has no flags.
var noFlagErrors = []unix.Errno{
	unix.ENOTTY, unix.EINVAL, unix.EOPNOTSUPP, unix.ENOSYS, unix.EACCES, unix.EPERM, unix.ENXIO,
}

// findFlags reads the inode flags of the source. Only regular files and directories have any.
func (m *metadata) findFlags() (err error) {
	switch m.st.Mode & unix.S_IFMT {
	case unix.S_IFREG, unix.S_IFDIR:
		m.flags, err = m.src.Inode().InodeFlags()
	}
	if err != nil && isOneOf(err, noFlagErrors) {
		m.flags, err = 0, nil
	}
	return err
}

// copyFlags adds copiedFlags to the flags that the upper's file system has set on the copy.
func (m *metadata) copyFlags() error {
	if m.flags&copiedFlags == 0 {
		return nil
	}
	dst := m.dst.Inode()
	flags, err := dst.InodeFlags()
	if err == nil {
		err = dst.SetInodeFlags(flags | m.flags&copiedFlags)
	}
	if err != nil && isOneOf(err, noFlagErrors) {
		return nil
	}
	return err
}
