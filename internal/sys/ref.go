package sys

import (
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Ref names one object of a layer: an entry of an opened directory, or an opened object itself. It
// is a value and holds nothing open. It is valid as long as the handle that it came from. No call
// follows a symbolic link.
type Ref struct {
	fd   int
	name string // empty: the descriptor's own object
}

const procFD = "/proc/self/fd/"

// procPath returns a path to the object by its descriptor, for calls that take paths alone. The
// call must not follow the last component if r has a name. If not, that is a magic link, which
// leads to the object and no further.
func (r Ref) procPath() string {
	p := procFD + strconv.Itoa(r.fd)
	if r.name == "" {
		return p
	}
	return p + "/" + r.name
}

// Stat fills st.
func (r Ref) Stat(st *Stat) error {
	if err := fault("fstatat", r.name); err != nil {
		return err
	}
	if r.name == "" {
		return unix.Fstat(r.fd, st)
	}
	return fstatat(r.fd, r.name, st, unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT)
}

// BirthTime returns when the object was made. known is false if its file system does not report
// that.
func (r Ref) BirthTime() (t unix.StatxTimestamp, known bool, err error) {
	if err := fault("statx", r.name); err != nil {
		return t, false, err
	}
	flags := unix.AT_SYMLINK_NOFOLLOW | unix.AT_NO_AUTOMOUNT
	if r.name == "" {
		flags |= unix.AT_EMPTY_PATH
	}
	var st unix.Statx_t
	if err := unix.Statx(r.fd, r.name, flags, unix.STATX_BTIME, &st); err != nil {
		return t, false, err
	}
	return st.Btime, st.Mask&unix.STATX_BTIME != 0, nil
}

// Statfs fills st with the properties of the object's file system.
func (r Ref) Statfs(st *unix.Statfs_t) error {
	if err := fault("fstatfs", r.name); err != nil {
		return err
	}
	o, err := r.Open()
	if err != nil {
		return err
	}
	defer o.Close()
	return retry(func() error { return unix.Fstatfs(o.fd, st) })
}

// Chmod sets the permission bits (07777).
func (r Ref) Chmod(mode uint32) error {
	if err := fault("fchmodat2", r.name); err != nil {
		return err
	}
	flags := unix.AT_SYMLINK_NOFOLLOW
	if r.name == "" {
		flags = unix.AT_EMPTY_PATH
	}
	err := unix.Fchmodat(r.fd, r.name, mode, flags)
	if err != unix.EOPNOTSUPP {
		return err
	}
	return r.chmodByDescriptor(mode)
}

// chmodByDescriptor replaces fchmodat2, which came with Linux 6.6. It uses a descriptor, which no
// symbolic link can redirect.
func (r Ref) chmodByDescriptor(mode uint32) error {
	o, err := r.Open()
	if err != nil {
		return err
	}
	defer o.Close()
	return unix.Fchmodat(unix.AT_FDCWD, o.ref().procPath(), mode, 0)
}

// Unchanged is a user or group id that Chown leaves as it is.
const Unchanged = ^uint32(0)

// Chown sets owner and group. [Unchanged] leaves one as it is.
func (r Ref) Chown(uid, gid uint32) error {
	if err := fault("fchownat", r.name); err != nil {
		return err
	}
	return unix.Fchownat(r.fd, r.name, int(int32(uid)), int(int32(gid)), unix.AT_SYMLINK_NOFOLLOW|unix.AT_EMPTY_PATH)
}

// Utimes sets access and modification time. Nanoseconds may be UTIME_NOW and UTIME_OMIT
// (utimensat(2)).
func (r Ref) Utimes(atime, mtime unix.Timespec) error {
	if err := fault("utimensat", r.name); err != nil {
		return err
	}
	ts := []unix.Timespec{atime, mtime}
	if r.name == "" {
		// Without a path it is futimens, which x/sys does not have.
		_, _, errno := unix.Syscall6(unix.SYS_UTIMENSAT, uintptr(r.fd), 0, uintptr(unsafe.Pointer(&ts[0])), 0, 0, 0)
		switch errno {
		case 0:
			return nil
		case unix.EBADF: // O_PATH
			return unix.UtimesNanoAt(unix.AT_FDCWD, r.procPath(), ts, 0)
		}
		return errno
	}
	return unix.UtimesNanoAt(r.fd, r.name, ts, unix.AT_SYMLINK_NOFOLLOW)
}

// Readlink returns the target of a symbolic link.
func (r Ref) Readlink() (string, error) {
	if err := fault("readlinkat", r.name); err != nil {
		return "", err
	}
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(r.fd, r.name, buf)
	if err != nil {
		return "", err
	}
	return string(buf[:n]), nil
}

// Open opens the object with O_PATH, which keeps it alive and neither reads nor writes it.
func (r Ref) Open() (*Object, error) {
	if err := fault("openat", r.name); err != nil {
		return nil, err
	}
	if r.name == "" {
		fd, err := unix.FcntlInt(uintptr(r.fd), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			return nil, err
		}
		return &Object{fd}, nil
	}
	fd, err := unix.Openat(r.fd, r.name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return &Object{fd}, nil
}

// OpenFile opens a regular file for I/O. flags are O_RDONLY or O_RDWR, and O_NOATIME. The caller
// knows from Stat that the object is a regular file. ENXIO: it has become something else since.
// OpenFile does not wait for a fifo. It opens no device if the layer has a clone of its mount,
// which allows none.
func (r Ref) OpenFile(flags int) (*File, error) {
	if err := fault("openat", r.name); err != nil {
		return nil, err
	}
	path, at, extra := r.name, r.fd, unix.O_NOFOLLOW
	if r.name == "" {
		path, at, extra = r.procPath(), unix.AT_FDCWD, 0
	}
	fd := -1
	err := retry(func() (err error) {
		fd, err = unix.Openat(at, path, flags|extra|unix.O_CLOEXEC|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
		return err
	})
	if err != nil {
		return nil, err
	}
	f := &File{Object{fd}}
	var st Stat
	if err := unix.Fstat(fd, &st); err != nil {
		f.Close()
		return nil, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		f.Close()
		return nil, unix.ENXIO
	}
	return f, nil
}

// Object is an opened object of a layer, of any kind.
type Object struct{ fd int }

// Close closes the descriptor. An Object is closed once.
func (o *Object) Close() { _ = unix.Close(o.fd) }

func (o *Object) ref() Ref { return Ref{fd: o.fd} }

// Ref names the opened object itself.
func (o *Object) Ref() Ref { return o.ref() }
