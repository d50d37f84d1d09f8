package main

import (
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/host"
	"github.com/fuse-overlay/fuse-overlay/internal/mountargs"
)

// remountOption is the option by which mount(8) requests other flags for a mount that exists.
const remountOption = "remount"

func wantsRemount(c *mountargs.Arguments) bool {
	return slices.ContainsFunc(c.OptionLists, func(list string) bool {
		return slices.Contains(mountargs.Fields(list), remountOption)
	})
}

// parseRemount takes the flags of a mount, such as ro, from the options. All other options are
// ignored, known or not: mount(8) adds those of fstab and of the mount table. The kernel's
// overlayfs ignores them too (ovl_parse_param).
func (r *request) parseRemount(c *mountargs.Arguments) (err error) {
	r.remount = true
	for _, list := range c.OptionLists {
		for _, field := range mountargs.Fields(list) {
			_ = r.apply(field)
		}
	}
	r.fake = c.Fake
	_, r.mount.Point, err = mountPoint(c)
	return err
}

// changeFlags gives the mount at the mount point the flags of the request. A mount that was
// read-only from the start stays so. The daemon does not notice, and keeps its rule for access
// times (D44).
func (r *request) changeFlags() error {
	m, ok := r.ownMount()
	if !ok {
		return fmt.Errorf("remount: no mount of this program is on %q", r.mount.Point)
	}
	flags := r.mount.Flags
	if err := host.Remount(m.Point, flags); err != nil {
		return fmt.Errorf("remount %q: %w", m.Point, err)
	}
	if flags&unix.MS_RDONLY != 0 || !host.RefusesChanges(m.Point) {
		return nil
	}
	err := fmt.Errorf("remount %q: its upper layer cannot be written: unmount it, and mount it again with upperdir and without ro",
		m.Point)
	return errors.Join(err, host.Remount(m.Point, flags|unix.MS_RDONLY))
}
