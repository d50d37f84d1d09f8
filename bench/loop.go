package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// mkfs are the commands that format an image with a file system that shares blocks between files.
var mkfs = map[string][]string{
	"xfs":   {"mkfs.xfs", "-q", "-m", "reflink=1"},
	"btrfs": {"mkfs.btrfs", "-q"},
}

// reflinked is big on a file system with reflinks, on a loop device.
func (l *layouts) reflinked(fileSystem string) (*layout, error) {
	name := "big-" + fileSystem
	return l.remember(name, func() (*layout, error) { return l.loop(name, fileSystem) })
}

func (l *layouts) loop(name, fileSystem string) (*layout, error) {
	if inUserNamespace() {
		return nil, fmt.Errorf("%w: a user namespace has no loop devices", errUnavailable)
	}
	format := mkfs[fileSystem]
	if _, err := exec.LookPath(format[0]); err != nil {
		return nil, fmt.Errorf("%w: %w", errUnavailable, err)
	}
	image, home := filepath.Join(l.dir, name+".img"), filepath.Join(l.dir, name+".mnt")
	if err := os.Mkdir(home, 0o755); err != nil {
		return nil, err
	}
	f, err := os.Create(image)
	if err != nil {
		return nil, err
	}
	// For the lower, for a copy of it by a candidate that does not share blocks, and for the file
	// system itself.
	if err := errors.Join(f.Truncate(3*l.sizes.bulk+1<<30), f.Close()); err != nil {
		return nil, err
	}
	ctx := context.Background()
	if err := run(ctx, "", format[0], append(format[1:len(format):len(format)], image)...); err != nil {
		return nil, fmt.Errorf("%w: %w", errUnavailable, err)
	}
	// mount(8) sets the device up to go with the mount.
	if err := run(ctx, "", "mount", "-o", "loop", image, home); err != nil {
		return nil, fmt.Errorf("%w: %w", errUnavailable, err)
	}
	l.mounts = append(l.mounts, home)
	made, err := newLayout(home, "layers", 1)
	if err != nil {
		return nil, err
	}
	return made, writeFile(filepath.Join(made.paths()[0], bigName), l.sizes.bulk)
}

// close unmounts what is on loop devices.
func (l *layouts) close() error {
	var errs []error
	for _, mount := range l.mounts {
		errs = append(errs, run(context.Background(), "", "umount", mount))
	}
	l.mounts = nil
	return errors.Join(errs...)
}
