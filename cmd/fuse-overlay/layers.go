package main

import (
	"errors"

	"github.com/fuse-overlay/fuse-overlay/internal/mountargs"
)

// errMixed is the kernel's error for two ways to name lower layers.
var errMixed = errors.New("lowerdir+ and datadir+ cannot follow lowerdir")

// setLowers sets lowerdir=. A second one replaces the first, as in the kernel: mount(8) lets a
// command line override a line of fstab so.
func setLowers(r *request, value string) (err error) {
	r.overlay.Lowers, r.overlay.DataOnly, err = mountargs.Lowers(value)
	return err
}

// addLower adds the layer of lowerdir+= below those given so far. Colons need no escape, as in the
// kernel.
func addLower(r *request, value string) error {
	switch {
	case r.given["lowerdir"]:
		return errMixed
	case len(r.overlay.DataOnly) > 0:
		return mountargs.ErrLowerAfter
	}
	r.overlay.Lowers = append(r.overlay.Lowers, mountargs.Unescape(value))
	return nil
}

// addData adds the data-only layer of datadir+= below those given so far.
func addData(r *request, value string) error {
	if r.given["lowerdir"] {
		return errMixed
	}
	r.overlay.DataOnly = append(r.overlay.DataOnly, mountargs.Unescape(value))
	return nil
}
