package sys

import (
	"fmt"
	"hash/fnv"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/host"
)

// Holder describes the mount that has locked a directory. The process of the mount publishes it
// beside the lock. It ends with the lock.
type Holder struct {
	// Dev is the device number of the mount's file system (st_dev). 0: not known.
	Dev uint64
	// Mount distinguishes the mount from others that get the device number after its end. It is a
	// hash of its number and mount point.
	Mount uint64
	// PID is the number of the process in the pid namespace PIDNamespace.
	PID int
	// PIDNamespace is the inode number of the pid namespace in which PID is a number,
	// MountNamespace that of the mount namespace in which the mount was made (/proc/PID/ns). 0: not
	// known.
	PIDNamespace, MountNamespace uint64
}

// A Holder is published as shared byte-range locks (F_OFD_SETLK) of one byte each on the directory.
// The position of the byte is the value: the number of a field in the high half, and what the field
// holds in the low half. An unused bit between them keeps the kernel from joining the locks of two
// fields. So nothing is written to the disk, each file system with local locks can carry it, and it
// ends with the process.
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

// Unpublish takes back what has been published through d's open file, by whatever process.
func (d *Dir) Unpublish() error {
	if err := fault("fcntl", ""); err != nil {
		return err
	}
	return unix.FcntlFlock(uintptr(d.fd), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_UNLCK})
}

// Holder returns what another process has published with its lock on d. ok is false if there is
// nothing.
func (d *Dir) Holder() (h Holder, ok bool) {
	var positions []int64
	for field := fieldDev; field <= fieldMountNamespace; field++ {
		lock := unix.Flock_t{Type: unix.F_WRLCK, Start: int64(field) << fieldShift, Len: 1 << fieldBits}
		if unix.FcntlFlock(uintptr(d.fd), unix.F_OFD_GETLK, &lock) != nil || lock.Type == unix.F_UNLCK {
			return Holder{}, false
		}
		positions = append(positions, lock.Start)
	}
	return ParseHolder(positions)
}

// ParseHolder returns the Holder that the positions of byte-range locks on one directory publish.
// ok is false if they are not those of one Holder: other processes may have locks there as well.
func ParseHolder(positions []int64) (h Holder, ok bool) {
	values := map[int]uint64{}
	for _, at := range positions {
		field := int(at >> fieldShift)
		if field < fieldDev || field > fieldMountNamespace || uint64(at)&(1<<fieldShift-1)>>fieldBits != 0 {
			return Holder{}, false
		}
		values[field] = uint64(at) & (1<<fieldBits - 1)
	}
	if len(values) != len(positions) || len(values) != fieldMountNamespace {
		return Holder{}, false
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

// Find finds the holder's mount in the table of the namespace in which it was made. ok is false if
// it is not there.
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

// SignalHolder sends SIGUSR2 to the process of a holder that d.Holder has returned. Each process
// that publishes a Holder handles the signal: it checks whether its mount is still in sight, and
// unlocks d if not. ESRCH: the process is gone, or not known here.
func (d *Dir) SignalHolder(h Holder) error {
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

// KnownPID returns the number of the holder's process in this pid namespace. 0: not known here.
func (h Holder) KnownPID() int {
	if h.PIDNamespace == 0 || h.PIDNamespace != host.Namespace("pid") {
		return 0
	}
	return h.PID
}
