package stack

import (
	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/sys"
	"github.com/fuse-overlay/fuse-overlay/whiteout"
)

// The whiteouts of an upper are links of one device in the work directory, as in the kernel's overlayfs (ovl_whiteout): a link
// takes less time than a device, and no inode. The device stays there until the mount ends. If the
// mount does not remove it, the next mount sweeps it. With index=on it lies in the index, as the
// kernel's does.

// makeDevice makes a whiteout device under a name that is free, in one step.
func (s *Stack) makeDevice(dir *sys.Dir, name string) error {
	for !s.unshared.Load() {
		work := s.sharedDir()
		shared, err := s.sharedDevice(work)
		if err == unix.ENOENT {
			break // another process has removed the directory
		}
		if err != nil {
			return err
		}
		switch err := dir.Link(work.At(*shared), name); err {
		case unix.EMLINK: // it has all the links that it can have
			if s.shared.CompareAndSwap(shared, nil) {
				_ = work.Unlink(*shared) // what stays is swept at the next mount
			}
		case unix.ENOENT:
			var st sys.Stat
			if work.At(*shared).Stat(&st) == nil {
				return err // the directory is gone
			}
			s.shared.CompareAndSwap(shared, nil) // another removal has taken it away, by the case above
		case unix.EXDEV, unix.EPERM, unix.EOPNOTSUPP, unix.EINVAL, unix.ENOSYS: // no links, or none into this directory: a quota of its own
			s.unshared.Store(true)
		default:
			return err
		}
	}
	return dir.Mknod(name, whiteout.DeviceMode, whiteout.DeviceRdev)
}

// sharedDir is where the device lies.
func (s *Stack) sharedDir() *sys.Dir {
	if s.index != nil {
		return s.index
	}
	return s.work.Dir()
}

// sharedDevice returns the name of the device in dir, and makes it where there is none.
func (s *Stack) sharedDevice(dir *sys.Dir) (*string, error) {
	for {
		if shared := s.shared.Load(); shared != nil {
			return shared, nil
		}
		name := s.work.Name()
		if err := dir.Mknod(name, whiteout.DeviceMode, whiteout.DeviceRdev); err != nil {
			return nil, err
		}
		if s.shared.CompareAndSwap(nil, &name) {
			return &name, nil
		}
		_ = dir.Unlink(name) // another was made at the same time
	}
}

// dropShared removes the device. It must not happen after another mount has the work directory, which may have given the name to
// an object of its own. An error leaves the device to the next mount, which sweeps it.
func (s *Stack) dropShared() {
	if shared := s.shared.Swap(nil); shared != nil {
		_ = s.sharedDir().Unlink(*shared)
	}
}
