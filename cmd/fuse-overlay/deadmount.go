package main

import (
	"errors"
	"slices"
	"syscall"

	"github.com/fuse-overlay/fuse-overlay/fs/conn"
	"github.com/fuse-overlay/fuse-overlay/internal/host"
)

// clearMountPoint detaches the dead mounts of this program at the mount point: their daemon was killed, and nothing can be done
// with them but that. Podman's first use of a container after such a death comes with one in the way.
func (r *request) clearMountPoint() {
	for isDead(r.mount.Point) {
		dead, ok := r.ownMount()
		if !ok || conn.Detach(dead.Point, r.mount.Direct) != nil {
			return // findMountPoint reports the dead mount
		}
		r.note("a dead mount of type %s on %q was in the way, and is detached", dead.Type, dead.Point)
	}
}

// isDead reports whether path leads to a mount whose daemon is gone. The kernel may still remember attributes of such a mount,
// but never these numbers.
func isDead(path string) bool {
	return errors.Is(syscall.Statfs(path, new(syscall.Statfs_t)), syscall.ENOTCONN)
}

// ownMount is the topmost mount at the mount point, if its type is this program's.
func (r *request) ownMount() (host.MountEntry, bool) {
	point, err := host.RealPath(r.mount.Point)
	if err != nil {
		return host.MountEntry{}, false
	}
	table, err := host.MountTable()
	if err != nil {
		return host.MountEntry{}, false
	}
	for _, m := range slices.Backward(table) {
		if m.Point == point {
			return m, slices.Contains([]string{"fuse." + ownName, "fuse." + compatName, "fuse." + r.mount.Type}, m.Type)
		}
	}
	return host.MountEntry{}, false
}
