package sys

import (
	"golang.org/x/sys/unix"
)

// What follows is for commands that change a layer that no mount uses.

// OpenForChanges opens a directory of a layer by a path from the command line, on its own mount. No
// step from it leads into another mount: [Dir.OpenDir] returns EXDEV there.
func OpenForChanges(path string) (*Dir, error) {
	top, err := openTrusted(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = unix.Close(top) }()
	d, err := openRoot(top)
	if err == nil {
		d.oneMount = true
	}
	return d, err
}

// SameMount reports whether names can be moved between two directories: they lie on one mount and
// have one device number.
func SameMount(a, b *Dir) (bool, error) {
	x, err := mountID(a.fd)
	if err != nil {
		return false, err
	}
	y, err := mountID(b.fd)
	if err != nil || x != y {
		return false, err
	}
	var s, t Stat
	if err := a.Ref().Stat(&s); err != nil {
		return false, err
	}
	err = b.Ref().Stat(&t)
	return s.Dev == t.Dev, err
}

// MayChange returns nil if this process may make and remove entries of the directory. EROFS: its
// mount or file system is read-only. EACCES: its permissions forbid it.
func (d *Dir) MayChange() error {
	if err := fault("faccessat2", ""); err != nil {
		return err
	}
	return unix.Faccessat(d.fd, ".", unix.W_OK|unix.X_OK, unix.AT_EACCESS)
}

// IsMountPoint reports whether a mount covers the entry. Before Linux 5.8 it returns false.
func (r Ref) IsMountPoint() (bool, error) {
	if err := fault("statx", r.name); err != nil {
		return false, err
	}
	var st unix.Statx_t
	if err := unix.Statx(r.fd, r.name, unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT, 0, &st); err != nil {
		if err == unix.ENOSYS {
			return false, nil
		}
		return false, err
	}
	return st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0, nil
}
