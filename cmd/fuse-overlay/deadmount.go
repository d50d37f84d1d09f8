package main

import (
	"errors"
	"slices"
	"syscall"

	"github.com/fuse-overlay/fuse-overlay/internal/host"
	"github.com/fuse-overlay/fuse-overlay/internal/mountargs"
)

// clearMountPoint detaches dead mounts of this program at the mount point. Their daemon was killed,
// so they are of no use. After that, podman mounts over one with its next use of the container.
func (r *request) clearMountPoint() {
	detach := host.DetachByHelper
	if r.mount.Direct {
		detach = host.Detach
	}
	for isDead(r.mount.Point) {
		dead, ok := r.ownMount()
		if !ok || detach(dead.Point) != nil {
			return // findMountPoint reports the dead mount
		}
		r.note("a dead mount of type %s on %q was in the way, and is detached", dead.Type, dead.Point)
	}
}

// isDead reports whether path leads to a mount without a daemon. The kernel may still have
// attributes of such a mount in its cache, but it never caches the reply to statfs(2).
func isDead(path string) bool {
	return errors.Is(syscall.Statfs(path, new(syscall.Statfs_t)), syscall.ENOTCONN)
}

// ownMount returns the topmost mount at the mount point. ok is false if its type is not this
// program's.
func (r *request) ownMount() (m host.MountEntry, ok bool) {
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
			return m, slices.Contains([]string{"fuse." + mountargs.OwnName, "fuse." + mountargs.CompatName, "fuse." + r.mount.Type}, m.Type)
		}
	}
	return host.MountEntry{}, false
}
