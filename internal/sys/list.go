package sys

import (
	"bytes"
	"encoding/binary"
	"math"
	"sync"

	"golang.org/x/sys/unix"
)

// Dirent is one entry of a directory, as getdents64 returns it.
type Dirent struct {
	Name string
	Ino  uint64
	// Type is DT_REG, DT_DIR, ...; DT_UNKNOWN if the file system does not report it.
	Type uint8
}

// listBuffer is the size of the buffer for getdents64: a directory of 10,000 entries takes about
// five calls.
const listBuffer = 64 << 10

var listBuffers = sync.Pool{New: func() any { b := make([]byte, listBuffer); return &b }}

// List calls f for every entry but "." and "..", in the order of the file system, and stops at f's
// first error. It moves the offset of the descriptor, so a Dir is listed by one goroutine at a
// time.
func (d *Dir) List(f func(Dirent) error) error {
	if d.searchOnly {
		return d.listAnew(f)
	}
	// Also the first time, because btrfs lists the entries as of the open or the last seek
	// (btrfs_dir_llseek).
	if _, err := unix.Seek(d.fd, 0, unix.SEEK_SET); err != nil {
		return err
	}
	return list(d.fd, f)
}

// listAnew lists by a new descriptor.
func (d *Dir) listAnew(f func(Dirent) error) error {
	if err := fault("openat", "."); err != nil {
		return err
	}
	fd, err := unix.Openat(d.fd, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	return list(fd, f)
}

func list(fd int, f func(Dirent) error) error {
	buf := listBuffers.Get().(*[]byte)
	defer listBuffers.Put(buf)
	for {
		if err := fault("getdents64", ""); err != nil {
			return err
		}
		n := 0
		err := retry(func() (err error) { n, err = unix.Getdents(fd, *buf); return err })
		if err != nil {
			return err
		}
		if n <= 0 {
			return nil
		}
		next, err := parseDirents((*buf)[:n], f)
		if err != nil {
			return err
		}
		if next == math.MaxInt64 { // the end, as ext4 and others mark it, so another call is not needed
			return nil
		}
	}
}

// parseDirents parses records of struct linux_dirent64: ino 8 bytes, off 8, reclen 2, type 1, name
// up to a NUL. next is the offset of the last record. The names of all records share one piece of
// memory, which lives as long as one of them.
func parseDirents(b []byte, f func(Dirent) error) (next int64, err error) {
	names, err := direntNames(b)
	if err != nil {
		return 0, err
	}
	for len(b) >= nameAt {
		record, err := firstDirent(b)
		if err != nil {
			return 0, err
		}
		size := len(nameOf(record))
		name := names[:size]
		names = names[size:]
		if name != "." && name != ".." {
			if err := f(Dirent{Name: name, Ino: binary.NativeEndian.Uint64(record), Type: record[18]}); err != nil {
				return 0, err
			}
		}
		next = int64(binary.NativeEndian.Uint64(record[8:]))
		b = b[len(record):]
	}
	return next, nil
}

// direntNames returns the names of all records, one after the other.
func direntNames(b []byte) (string, error) {
	buf := nameBuffers.Get().(*[]byte)
	defer nameBuffers.Put(buf)
	*buf = (*buf)[:0]
	for len(b) >= nameAt {
		record, err := firstDirent(b)
		if err != nil {
			return "", err
		}
		*buf = append(*buf, nameOf(record)...)
		b = b[len(record):]
	}
	return string(*buf), nil
}

// nameAt is the offset of the name in a record.
const nameAt = 19

var nameBuffers = sync.Pool{New: func() any { return &[]byte{} }}

// firstDirent returns the first record of b. EIO: its length is impossible.
func firstDirent(b []byte) ([]byte, error) {
	size := int(binary.NativeEndian.Uint16(b[16:]))
	if size < nameAt || size > len(b) {
		return nil, unix.EIO
	}
	return b[:size], nil
}

func nameOf(record []byte) []byte {
	name := record[nameAt:]
	if end := bytes.IndexByte(name, 0); end >= 0 {
		name = name[:end]
	}
	return name
}
