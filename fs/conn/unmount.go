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

// Outside is a process that does for this one what this one has no right to do.
type Outside interface {
	// Unmount is [Unmounting.Unmount].
	Unmount() error
	// InSight is [host.Place.InSight].
	InSight() (bool, error)
}

// SetOutside makes another process unmount, and look at the mount's namespace. Call it before
// [Mount.Serve].
func (m *Mount) SetOutside(o Outside) { m.outside = o }

// Unmount takes the mount out of the tree, see [Unmounting.Unmount].
func (m *Mount) Unmount() error {
	if m.outside != nil {
		return m.outside.Unmount()
	}
	return Quietly(m.Unmounting().Unmount)
}

// InSight reports whether the namespace in which the mount was made still has it.
func (m *Mount) InSight() (bool, error) {
	if m.outside != nil {
		return m.outside.InSight()
	}
	return m.place.InSight()
}

// Unmounting is what it takes to unmount a mount, by whatever process.
type Unmounting struct {
	Point string // where it was made
	Place host.Place
	// Direct and Apart: as [MountConfig] has Direct, and whether it has a Namespace.
	Direct, Apart bool
}

// Unmounting describes how to unmount m.
func (m *Mount) Unmounting() Unmounting {
	return Unmounting{Point: m.cfg.Point, Place: m.place, Direct: m.cfg.Direct, Apart: m.inOtherNamespace()}
}

// Unmount makes the kernel write back its dirty pages and takes the mount out of the tree. It
// detaches a mount that is in use. It does not wait for the mount's users, there or in other mount
// namespaces.
func (u Unmounting) Unmount() error {
	if !u.Apart {
		return u.unmountAt(u.Point)
	}
	// In a namespace without a process no path leads to the mount.
	_, err := u.Place.Visit(func(mounts []host.MountEntry) error {
		point := u.Place.Point(mounts)
		if point == "" { // the mount is no longer in that namespace
			return nil
		}
		return u.unmountAt(point)
	})
	return err
}

func (u Unmounting) unmountAt(point string) error {
	if err := host.SyncMount(point); err != nil && err != unix.ENOTCONN { // of a connection that has ended, nothing is left
		return fmt.Errorf("mount point %q: cannot write back: %w", point, err)
	}
	if u.Direct {
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
