package sys

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// File is a regular file opened for I/O. Offsets are always given; the descriptor's own is never
// used.
type File struct{ Object }

// Pread reads into p at off and returns the count. Without an error, it is less than len(p) only at
// the end of the file.
func (f *File) Pread(p []byte, off int64) (int, error) {
	done := 0
	for done < len(p) {
		if err := fault("pread64", ""); err != nil {
			return done, err
		}
		n := 0
		err := retry(func() (err error) { n, err = unix.Pread(f.fd, p[done:], off+int64(done)); return err })
		if err != nil {
			return done, err
		}
		if n == 0 {
			break
		}
		done += n
	}
	return done, nil
}

// Pwrite writes all of p at off. With an error, the count is how much was written.
func (f *File) Pwrite(p []byte, off int64) (int, error) {
	done := 0
	for done < len(p) {
		if err := fault("pwrite64", ""); err != nil {
			return done, err
		}
		n := 0
		err := retry(func() (err error) { n, err = unix.Pwrite(f.fd, p[done:], off+int64(done)); return err })
		if err != nil {
			return done, err
		}
		if n == 0 {
			return done, unix.EIO
		}
		done += n
	}
	return done, nil
}

// Truncate sets the size.
func (f *File) Truncate(size int64) error {
	if err := fault("ftruncate", ""); err != nil {
		return err
	}
	return retry(func() error { return unix.Ftruncate(f.fd, size) })
}

// Sync makes data and metadata durable (fsync).
func (f *File) Sync() error {
	if err := fault("fsync", ""); err != nil {
		return err
	}
	return retry(func() error { return unix.Fsync(f.fd) })
}

// WriteBack writes the dirty data back and waits until the device has all of it (sync_file_range
// with all three flags, which skips no page from Linux 5.2 on: WB_SYNC_ALL). It does not commit a
// journal or flush the device's cache, so nothing is durable by it alone. It also returns the error
// of an earlier writeback.
func (f *File) WriteBack() error {
	if err := fault("sync_file_range", ""); err != nil {
		return err
	}
	const all = unix.SYNC_FILE_RANGE_WAIT_BEFORE | unix.SYNC_FILE_RANGE_WRITE | unix.SYNC_FILE_RANGE_WAIT_AFTER
	return retry(func() error { return unix.SyncFileRange(f.fd, 0, 0, all) })
}

// StartWriteBack starts the writeback of the dirty data in a range (sync_file_range). It waits for
// the device only if its queue is full.
func (f *File) StartWriteBack(off, n int64) error {
	if err := fault("sync_file_range", ""); err != nil {
		return err
	}
	return retry(func() error { return unix.SyncFileRange(f.fd, off, n, unix.SYNC_FILE_RANGE_WRITE) })
}

// Datasync makes the data, and what is needed to find it, durable (fdatasync).
func (f *File) Datasync() error {
	if err := fault("fdatasync", ""); err != nil {
		return err
	}
	return retry(func() error { return unix.Fdatasync(f.fd) })
}

// Fallocate reserves, punches, zeroes, collapses or inserts, by mode (fallocate(2)).
func (f *File) Fallocate(mode uint32, off, length int64) error {
	if err := fault("fallocate", ""); err != nil {
		return err
	}
	return retry(func() error { return unix.Fallocate(f.fd, mode, off, length) })
}

// Seek finds data (SEEK_DATA) or a hole (SEEK_HOLE) from off on. ENXIO: off is past the end.
func (f *File) Seek(off int64, whence int) (int64, error) {
	if err := fault("lseek", ""); err != nil {
		return 0, err
	}
	return unix.Seek(f.fd, off, whence)
}

// Clone makes f share all of src's data (FICLONE). EOPNOTSUPP, EXDEV or EINVAL: the file system
// cannot.
func (f *File) Clone(src *File) error {
	if err := fault("ioctl", "FICLONE"); err != nil {
		return err
	}
	return unix.IoctlFileClone(f.fd, src.fd)
}

// CopyRange copies up to n bytes from src at srcOff to off inside the kernel (copy_file_range) and
// returns the count, which is 0 at the end of src.
func (f *File) CopyRange(src *File, srcOff, off int64, n int) (int, error) {
	if err := fault("copy_file_range", ""); err != nil {
		return 0, err
	}
	done := 0
	err := retry(func() (err error) {
		done, err = unix.CopyFileRange(src.fd, &srcOff, f.fd, &off, n, 0)
		return err
	})
	return done, err
}

// Flags reads or writes inode flags by the object's descriptor. arg is the memory of the ioctl's
// argument. EINVAL: it is smaller than the ioctl's number demands.
func (o *Object) Flags(cmd uint32, arg []byte) error {
	if err := fault("ioctl", "FLAGS"); err != nil {
		return err
	}
	if len(arg) < int(cmd>>16&0x3fff) {
		return unix.EINVAL
	}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(o.fd), uintptr(cmd), uintptr(unsafe.Pointer(&arg[0])))
	if errno != 0 {
		return errno
	}
	return nil
}
