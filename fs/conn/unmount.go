package conn

import (
	"errors"
	"fmt"
	"runtime/debug"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/host"
)

// Cut ends the connection to the kernel, for a process that ends. Requests under way may hang in a
// layer that does not answer. A thread in such a call keeps the descriptors of the process open
// until the call returns, and so the callers of these requests waiting.
func (m *Mount) Cut() error { return m.cut() }

// Quietly calls f with the garbage collector off. f enters the mount that this process itself
// serves. A collection can miss a thread that enters its system call while the world is being
// stopped (fs/conn/readers has the reason), and waits for it. The stopped threads cannot answer the
// request of f, so the mount would hang for a minute.
func Quietly(f func() error) error {
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // waits for the end of a collection under way
	return f()
}

// Unmount makes the kernel write back its dirty pages and takes the mount out of the tree. It
// detaches a mount that is in use. It does not wait for the mount's users, there or in other mount
// namespaces.
func (m *Mount) Unmount() error { return Quietly(m.unmount) }

func (m *Mount) unmount() error {
	if !m.inOtherNamespace() {
		return m.unmountAt(m.cfg.Point)
	}
	// In a namespace without a process no path leads to the mount.
	_, err := m.place.Visit(func(mounts []host.MountEntry) error {
		point := m.place.Point(mounts)
		if point == "" { // the mount is no longer in that namespace
			return nil
		}
		return m.unmountAt(point)
	})
	return err
}

func (m *Mount) unmountAt(point string) error {
	if err := host.SyncMount(point); err != nil {
		return fmt.Errorf("mount point %q: cannot write back: %w", point, err)
	}
	if m.cfg.Direct {
		err := host.Unmount(point)
		if errors.Is(err, unix.EBUSY) {
			err = host.Detach(point)
		}
		return err
	}
	if err := host.UnmountByHelper(point); err == nil {
		return nil
	}
	return host.DetachByHelper(point)
}
