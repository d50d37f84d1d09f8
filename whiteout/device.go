package whiteout

import (
	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// The whiteouts of an upper are links of one device in the work directory, as in the kernel's
// overlayfs (ovl_whiteout): a link takes less time than a device, and no inode. The device stays
// there until the mount ends. If the mount does not remove it, the next mount sweeps it.

// A whiteout device is a character device 0/0 without permissions, which needs no privilege since
// Linux 5.8.
const (
	deviceMode uint32 = unix.S_IFCHR
	deviceRdev uint64 = 0
)

// IsDevice reports whether st is that of a whiteout in device form.
func IsDevice(st *sys.Stat) bool { return st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == deviceRdev }

// ShareIn has the shared device lie in dir from now on. With index=on it lies in the index, as the
// kernel's does. Precondition: no whiteout has been made yet.
func (m *Maker) ShareIn(dir *sys.Dir) { m.shares = dir }

// makeDevice makes a whiteout device under a name that is free, in one step.
func (m *Maker) makeDevice(dir *sys.Dir, name string) error {
	for !m.unshared.Load() {
		shared, err := m.sharedDevice()
		if err == unix.ENOENT {
			break // another process has removed the directory
		}
		if err != nil {
			return err
		}
		switch err := dir.Link(m.shares.At(*shared), name); err {
		case unix.EMLINK: // the device has all the links that it can have
			if m.shared.CompareAndSwap(shared, nil) {
				_ = m.shares.Unlink(*shared) // the next mount sweeps it if it stays
			}
		case unix.ENOENT:
			var st sys.Stat
			if m.shares.At(*shared).Stat(&st) == nil {
				return err // dir is gone
			}
			m.shared.CompareAndSwap(shared, nil) // another call has removed the device, by the case above
		case unix.EXDEV, unix.EPERM, unix.EOPNOTSUPP, unix.EINVAL, unix.ENOSYS:
			m.unshared.Store(true) // no links, or none into dir, which has a project quota of its own
		default:
			return err
		}
	}
	return dir.Mknod(name, deviceMode, deviceRdev)
}

// sharedDevice returns the name of the device, and makes the device if there is none.
func (m *Maker) sharedDevice() (*string, error) {
	for {
		if shared := m.shared.Load(); shared != nil {
			return shared, nil
		}
		name := m.work.Name()
		if err := m.shares.Mknod(name, deviceMode, deviceRdev); err != nil {
			return nil, err
		}
		if m.shared.CompareAndSwap(nil, &name) {
			return &name, nil
		}
		_ = m.shares.Unlink(name) // another goroutine has made one at the same time
	}
}

// Close removes the shared device. Precondition: no other mount has the work directory yet, since
// that may have given the name to an object of its own. After an error the device stays, and the
// next mount sweeps it.
func (m *Maker) Close() {
	if shared := m.shared.Swap(nil); shared != nil {
		_ = m.shares.Unlink(*shared)
	}
}
