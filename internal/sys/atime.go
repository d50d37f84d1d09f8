package sys

import (
	"golang.org/x/sys/unix"
)

// AccessTimes are flags of mount(2) that decide when reads change access times: MS_STRICTATIME,
// MS_NOATIME or, without both, MS_RELATIME; and MS_NODIRATIME. MS_STRICTATIME wins over MS_NOATIME.
type AccessTimes uintptr

// Strict reports whether each read changes the time.
func (a AccessTimes) Strict() bool { return a&unix.MS_STRICTATIME != 0 }

// None reports whether no read changes a time.
func (a AccessTimes) None() bool { return !a.Strict() && a&unix.MS_NOATIME != 0 }

// NoDirs reports whether no read of a directory changes its time.
func (a AccessTimes) NoDirs() bool { return a.None() || a&unix.MS_NODIRATIME != 0 }

// attr returns a in the form of mount_setattr(2).
func (a AccessTimes) attr() unix.MountAttr {
	attr := unix.MountAttr{Attr_clr: unix.MOUNT_ATTR__ATIME | unix.MOUNT_ATTR_NODIRATIME}
	switch {
	case a.Strict():
		attr.Attr_set = unix.MOUNT_ATTR_STRICTATIME
	case a.None():
		attr.Attr_set = unix.MOUNT_ATTR_NOATIME
	default:
		attr.Attr_set = unix.MOUNT_ATTR_RELATIME
	}
	if a&unix.MS_NODIRATIME != 0 {
		attr.Attr_set |= unix.MOUNT_ATTR_NODIRATIME
	}
	return attr
}

// avoidAccessTimes makes reads through the layer's root d keep access times. If the mount does not
// do that already, each open gets O_NOATIME.
func (d *Dir) avoidAccessTimes() {
	var st unix.Statfs_t
	const noatime = 0x400 // ST_NOATIME of statfs(2)
	if unix.Fstatfs(d.fd, &st) == nil && st.Flags&noatime != 0 {
		return
	}
	d.quiet = true
	if again, err := d.OpenDir(""); err == nil {
		d.fd, again.fd = again.fd, d.fd
		again.Close()
	}
}

// Quiet reports whether the layer's files have to be opened with O_NOATIME.
func (d *Dir) Quiet() bool { return d.quiet }

// MarkRead reads the beginning of the directory, which changes its access time.
func (d *Dir) MarkRead() error {
	if err := fault("openat", "."); err != nil {
		return err
	}
	fd, err := unix.Openat(d.fd, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	buf := make([]byte, 1024)
	return retry(func() error { _, err := unix.Getdents(fd, buf); return err })
}
