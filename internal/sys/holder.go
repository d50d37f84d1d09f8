package sys

import (
	"fmt"
	"hash/fnv"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/host"
)

// Holder describes the mount that has locked a directory. Its process publishes it beside the lock, and it ends with the lock.
type Holder struct {
	// Dev is the device number of the mount's file system (st_dev); 0: not known.
	Dev uint64
	// Mount distinguishes the mount from others that get the device number after its end. It is a
	// hash of its number and mount point.
	Mount uint64
	// PID is the process, by its number in the pid namespace PIDNamespace.
	PID int
	// PIDNamespace and MountNamespace are inode numbers of namespaces (/proc/PID/ns): where PID counts, and where the mount
	// was made. 0: not known.
	PIDNamespace, MountNamespace uint64
}

// A Holder is published as shared byte-range locks (F_OFD_SETLK) of one byte each on the directory. The position of the byte
// is the value: a field's number in the high half, what the field holds in the low half, with an unused bit between that keeps the
// kernel from joining the locks of two fields. So nothing is written to the disk, every
// file system with local locks can carry it, and it needs no clean-up.
const (
	fieldDev = iota + 1
	fieldMount
	fieldPID
	fieldPIDNamespace
	fieldMountNamespace
)

const (
	fieldBits  = 32
	fieldShift = fieldBits + 1
)

// minorBits is the width of the minor number in the kernel (MINORBITS of linux/kdev_t.h).
const minorBits = 20

func (h *Holder) fields() map[int]uint64 {
	return map[int]uint64{
		fieldDev: uint64(unix.Major(h.Dev))<<minorBits | uint64(unix.Minor(h.Dev)), fieldPID: uint64(h.PID),
		fieldMount: h.Mount, fieldPIDNamespace: h.PIDNamespace, fieldMountNamespace: h.MountNamespace,
	}
}

// Publish stores which mount has locked d. Precondition: Lock.
func (d *Dir) Publish(h Holder) error {
	if err := fault("fcntl", ""); err != nil {
		return err
	}
	for field, value := range h.fields() {
		lock := unix.Flock_t{Type: unix.F_RDLCK, Start: int64(field)<<fieldShift | int64(value), Len: 1}
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
		lock := unix.Flock_t{Type: unix.F_WRLCK, Start: int64(field) << fieldShift, Len: 1 << fieldBits}
		if unix.FcntlFlock(uintptr(d.fd), unix.F_OFD_GETLK, &lock) != nil || lock.Type == unix.F_UNLCK {
			return Holder{}, false
		}
		values[field] = uint64(lock.Start) & (1<<fieldBits - 1)
	}
	dev := values[fieldDev]
	return Holder{
		Dev: unix.Mkdev(uint32(dev>>minorBits), uint32(dev&(1<<minorBits-1))), Mount: values[fieldMount], PID: int(values[fieldPID]),
		PIDNamespace: values[fieldPIDNamespace], MountNamespace: values[fieldMountNamespace],
	}, true
}

// Self describes this process as the holder of the mount at a place.
func Self(p host.Place) Holder {
	return Holder{
		Dev: p.Mount.Dev, Mount: mountHash(p.Mount), PID: os.Getpid(), PIDNamespace: host.Namespace("pid"), MountNamespace: p.Namespace,
	}
}

// Find is the holder's mount in the table of the namespace in which it was made; ok is false where the table does not show it.
func (h Holder) Find(table []host.MountEntry) (m host.MountEntry, ok bool) {
	i := slices.IndexFunc(table, func(m host.MountEntry) bool { return m.Dev == h.Dev && mountHash(m) == h.Mount })
	if i < 0 {
		return host.MountEntry{}, false
	}
	return table[i], true
}

func mountHash(m host.MountEntry) uint64 {
	h := fnv.New32a()
	_, _ = fmt.Fprintf(h, "%d %s", m.ID, m.Point) // never fails
	return uint64(h.Sum32())
}

// AskHolder sends SIGUSR2 to the process of a holder, which d.Holder has returned. That process
// then checks whether its mount is still in sight, and gives d up if not. A process that publishes
// a Holder handles the signal.
func (d *Dir) AskHolder(h Holder) error {
	pid := h.KnownPID()
	if pid == 0 {
		return unix.ESRCH
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	if now, ok := d.Holder(); !ok || now != h { // else the number could be another process's by now
		return unix.ESRCH
	}
	return unix.PidfdSendSignal(fd, unix.SIGUSR2, nil, 0)
}

// KnownPID is the number of the holder's process in this pid namespace; 0: not known here.
func (h Holder) KnownPID() int {
	if h.PIDNamespace == 0 || h.PIDNamespace != host.Namespace("pid") {
		return 0
	}
	return h.PID
}
