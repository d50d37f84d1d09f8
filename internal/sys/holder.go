package sys

import (
	"os"

	"golang.org/x/sys/unix"
)

// Holder describes the mount that has locked a directory. Its process publishes it beside the lock, and it ends with the lock.
type Holder struct {
	// Dev is the device number of the mount's file system (st_dev); 0: not known.
	Dev uint64
	// PID is the process, by its number in the pid namespace PIDNamespace.
	PID int
	// PIDNamespace and MountNamespace are inode numbers of namespaces (/proc/PID/ns): where PID counts, and where the mount
	// was made. 0: not known.
	PIDNamespace, MountNamespace uint64
}

// A Holder is published as shared byte-range locks (F_OFD_SETLK) of one byte each on the directory. The position of the byte
// is the value: a field's number in the high half, what the field holds in the low half. So nothing is written to the disk, every
// file system with local locks can carry it, and it needs no clean-up.
const (
	fieldDev = iota + 1
	fieldPID
	fieldPIDNamespace
	fieldMountNamespace
)

const fieldBits = 32

// minorBits is the width of the minor number in the kernel (MINORBITS of linux/kdev_t.h).
const minorBits = 20

func (h *Holder) fields() map[int]uint64 {
	return map[int]uint64{
		fieldDev: uint64(unix.Major(h.Dev))<<minorBits | uint64(unix.Minor(h.Dev)), fieldPID: uint64(h.PID),
		fieldPIDNamespace: h.PIDNamespace, fieldMountNamespace: h.MountNamespace,
	}
}

// Publish says who has locked d. Precondition: Lock.
func (d *Dir) Publish(h Holder) error {
	if err := fault("fcntl", ""); err != nil {
		return err
	}
	for field, value := range h.fields() {
		lock := unix.Flock_t{Type: unix.F_RDLCK, Start: int64(field)<<fieldBits | int64(value), Len: 1}
		if err := unix.FcntlFlock(uintptr(d.fd), unix.F_OFD_SETLK, &lock); err != nil {
			return err
		}
	}
	return nil
}

// Holder returns what another process has published of its lock on d; ok is false where there is nothing.
func (d *Dir) Holder() (h Holder, ok bool) {
	values := map[int]uint64{}
	for field := fieldDev; field <= fieldMountNamespace; field++ {
		lock := unix.Flock_t{Type: unix.F_WRLCK, Start: int64(field) << fieldBits, Len: 1 << fieldBits}
		if unix.FcntlFlock(uintptr(d.fd), unix.F_OFD_GETLK, &lock) != nil || lock.Type == unix.F_UNLCK {
			return Holder{}, false
		}
		values[field] = uint64(lock.Start) & (1<<fieldBits - 1)
	}
	dev := values[fieldDev]
	return Holder{
		Dev: unix.Mkdev(uint32(dev>>minorBits), uint32(dev&(1<<minorBits-1))), PID: int(values[fieldPID]),
		PIDNamespace: values[fieldPIDNamespace], MountNamespace: values[fieldMountNamespace],
	}, true
}

// Self describes this process as the holder of a mount that was made in its own mount namespace.
func Self(dev uint64) Holder {
	return Holder{Dev: dev, PID: os.Getpid(), PIDNamespace: namespace("pid"), MountNamespace: namespace("mnt")}
}

// Here reports whether the holder's mount was made in the mount namespace of this process.
func (h Holder) Here() bool { return h.MountNamespace != 0 && h.MountNamespace == namespace("mnt") }

// KnownPID is the number of the holder's process in this pid namespace; 0: not known here.
func (h Holder) KnownPID() int {
	if h.PIDNamespace == 0 || h.PIDNamespace != namespace("pid") {
		return 0
	}
	return h.PID
}

// namespace is the inode number of a namespace of this process; 0 where /proc does not tell.
func namespace(kind string) uint64 {
	var st Stat
	if unix.Stat("/proc/self/ns/"+kind, &st) != nil {
		return 0
	}
	return st.Ino
}
