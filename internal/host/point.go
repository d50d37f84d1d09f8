package host

import (
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Point is a path that this process has opened without a request to the file system that is mounted
// there. Requests to the file systems above it are possible.
type Point struct{ fd int }

// OpenPoint opens what a path leads to. Of two mounts at one place it is the upper one.
func OpenPoint(path string) (Point, error) {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	return Point{fd}, err
}

// OpenMountPoint is [OpenPoint] for a mount point of the mount table, and sends no request to file
// systems above it either: the kernel keeps the names of mount points, and all above, in its cache.
// EAGAIN: a FUSE file system above it has no valid entry. Before Linux 5.12 it may get
// requests.
func OpenMountPoint(path string) (Point, error) {
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: resolveCached | unix.RESOLVE_NO_SYMLINKS}
	for try := 1; ; try++ {
		fd, err := unix.Openat2(unix.AT_FDCWD, path, &how)
		switch {
		case err == unix.ENOSYS, err == unix.EINVAL, err == unix.EPERM: // EPERM: a seccomp filter
			return OpenPoint(path)
		case err == unix.EAGAIN && try < cachedTries: // a rename somewhere disturbs the lookup
			continue
		}
		return Point{fd}, err
	}
}

// resolveCached is RESOLVE_CACHED of linux/openat2.h: the lookup uses the kernel's cache alone.
const resolveCached = 0x20

// cachedTries is how often OpenMountPoint looks into the cache.
const cachedTries = 10

// Close closes the descriptor, which keeps the mount in use.
func (p Point) Close() { _ = unix.Close(p.fd) }

// Type returns the type of the file system (statfs(2)), which gets a request.
func (p Point) Type() (int64, error) {
	var st unix.Statfs_t
	err := retry(func() error { return unix.Fstatfs(p.fd, &st) })
	return st.Type, err
}

// Request makes the kernel request the attributes of the object, if it does not have them.
func (p Point) Request() error { return unix.Fstat(p.fd, new(unix.Stat_t)) }

// Path returns the path without symbolic links.
func (p Point) Path() (string, error) {
	real, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(p.fd))
	if err != nil {
		return "", unix.ENOENT
	}
	return real, nil
}

// MountID returns the number of the mount ([MountEntry.ID]).
func (p Point) MountID() (int, error) {
	text, err := ReadFile("/proc/self/fdinfo/" + strconv.Itoa(p.fd))
	if err != nil {
		return 0, err
	}
	number, ok := fieldOf(text, "mnt_id:")
	if !ok {
		return 0, unix.ENOENT
	}
	return strconv.Atoi(number)
}

// Answers sends a request to the file system (statfs(2)). ENOTCONN: a FUSE file system without a
// server. allowed is false if the kernel has not sent the request, since this process may not use
// the FUSE file system (fuse_statfs then leaves all numbers 0).
func (p Point) Answers() (allowed bool, err error) {
	var st unix.Statfs_t
	err = retry(func() error { return unix.Fstatfs(p.fd, &st) })
	return err != nil || st.Bsize != 0, err
}

// Sync writes back what is cached of the file system of a directory (syncfs(2)).
func (p Point) Sync() error {
	fd, err := unix.Openat(p.fd, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	return retry(func() error { return unix.Syncfs(fd) })
}

// fieldOf returns the text after a name in a file of /proc that has one field on each line.
func fieldOf(text, name string) (value string, ok bool) {
	for line := range strings.Lines(text) {
		if value, ok := strings.CutPrefix(line, name); ok {
			return strings.TrimSpace(value), true
		}
	}
	return "", false
}
