package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"github.com/fuse-overlay/fuse-overlay/fs/conn"
	"github.com/fuse-overlay/fuse-overlay/internal/host"
)

const fuseDevice = "/dev/fuse"

// checkMountable reports why the mount could not be made, before a layer is opened. It makes the
// path of the mount point absolute, because the daemon leaves its working directory and unmounts by
// the path.
func (r *request) checkMountable() error {
	if fd, ok := conn.DeviceFD(r.mount.Point); ok {
		return checkDeviceFD(fd)
	}
	r.mount.Direct = host.MayMount()
	r.clearMountPoint()
	point, err := findMountPoint(r.mount.Point)
	if err != nil {
		return err
	}
	r.mount.Point = point
	if r.mount.Direct {
		return checkDeviceUsable()
	}
	return checkHelper()
}

// fuseRdev is the fixed device number 10:229 (FUSE_MINOR of linux/miscdevice.h).
const fuseRdev = 10<<8 | 229

func checkDeviceFD(fd int) error {
	var st syscall.Stat_t
	if err := syscall.Fstat(fd, &st); err != nil {
		return fmt.Errorf("mount point \"/dev/fd/%d\": %w", fd, err)
	}
	if st.Mode&syscall.S_IFMT != syscall.S_IFCHR || st.Rdev != fuseRdev {
		return fmt.Errorf("mount point \"/dev/fd/%d\": not an open %s", fd, fuseDevice)
	}
	syscall.CloseOnExec(fd)
	return nil
}

func findMountPoint(point string) (string, error) {
	info, err := os.Stat(point)
	if err == nil {
		// The kernel may have attributes of a dead mount in its cache. It never caches the reply to
		// statfs(2).
		err = syscall.Statfs(point, new(syscall.Statfs_t))
	}
	switch {
	case errors.Is(err, syscall.ENOTCONN):
		return "", fmt.Errorf("mount point %q: a dead FUSE mount is in the way (umount it first): %w", point, cause(err))
	case err != nil:
		return "", fmt.Errorf("mount point %q: %w", point, cause(err))
	case !info.IsDir():
		return "", fmt.Errorf("mount point %q: not a directory", point)
	}
	path, err := filepath.Abs(point)
	if err == nil {
		path, err = filepath.EvalSymlinks(path)
	}
	if err != nil {
		return "", fmt.Errorf("mount point %q: %w", point, cause(err))
	}
	return path, nil
}

// cause returns the error without the names of call and file, for messages that have the name of
// the file already.
func cause(err error) error {
	var path *os.PathError
	if errors.As(err, &path) {
		return path.Err
	}
	return err
}

func checkDeviceUsable() error {
	f, err := os.OpenFile(fuseDevice, os.O_RDWR, 0)
	if err == nil {
		return f.Close()
	}
	return explainDevice(err)
}

func explainDevice(err error) error {
	hint := ""
	switch {
	case errors.Is(err, os.ErrNotExist), errors.Is(err, syscall.ENODEV), errors.Is(err, syscall.ENXIO):
		hint = " (is the kernel module fuse loaded, and the device passed to the container?)"
	case errors.Is(err, syscall.EACCES):
		hint = " (its mode usually lets all users in: chmod 666 " + fuseDevice + ")"
	case errors.Is(err, syscall.EPERM):
		hint = " (is the container allowed to use the device?)"
	}
	return fmt.Errorf("cannot open %s: %w%s", fuseDevice, cause(err), hint)
}

// checkHelper does not open the device, because the helper may have more rights than this process.
func checkHelper() error {
	if _, err := os.Stat(fuseDevice); err != nil {
		return explainDevice(err)
	}
	_, err := host.MountProgram()
	return err
}
