package stack

import (
	"slices"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// local are file systems on which close(2) waits for no server. On FUSE and network file systems a
// close is a request (FLUSH), which hangs if the server does.
var local = []uint32{
	unix.EXT4_SUPER_MAGIC, unix.XFS_SUPER_MAGIC, unix.BTRFS_SUPER_MAGIC, unix.F2FS_SUPER_MAGIC,
	unix.TMPFS_MAGIC, unix.RAMFS_MAGIC, unix.SQUASHFS_MAGIC, unix.EROFS_SUPER_MAGIC_V1, unix.ISOFS_SUPER_MAGIC,
}

// isLocal reports whether a layer lies on one of the local file systems.
func isLocal(root *sys.Dir) bool {
	var st unix.Statfs_t
	return root.Ref().Statfs(&st) == nil && slices.Contains(local, uint32(st.Type))
}

// findRemote sets s.remote.
func (s *Stack) findRemote() {
	for i, l := range s.layers {
		s.remote = s.remote || i != Upper && !isLocal(l.root)
	}
	for _, root := range s.dataOnly {
		s.remote = s.remote || !isLocal(root)
	}
}

// Remote reports whether a lower may not lie on a local file system: close(2) of its files may
// hang.
func (s *Stack) Remote() bool { return s.remote }
