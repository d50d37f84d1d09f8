package sys

import (
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Dir is an opened directory of a layer and the proof that what is reached through it stays inside
// that layer.
type Dir struct {
	Object
	quiet      bool // immutable: directories are opened with O_NOATIME, if this process's user owns them
	searchOnly bool // immutable: opened with O_PATH, for searching
	oneMount   bool // immutable: no path from it leads into another mount
	// clone is the descriptor of the cloned mount, which one Dir holds for all directories of the
	// clone. nil: another Dir holds it, or there is no clone. While it is open, the kernel closes
	// other descriptors of the mount without the lock of all mounts (mntput_no_expire).
	clone *Object
}

// Close closes the descriptor. A Dir is closed once.
func (d *Dir) Close() {
	d.Object.Close()
	if d.clone != nil {
		d.clone.Close()
	}
}

// At returns the Ref of an entry. Every call on it fails if name is not one plain component.
func (d *Dir) At(name string) Ref {
	if !validName(name) {
		return Ref{fd: -1, name: "\x00"} // no string with a NUL reaches the kernel
	}
	return Ref{fd: d.fd, name: name}
}

func validName(name string) bool {
	return name != "" && name != "." && name != ".." && strings.IndexByte(name, '/') < 0
}

// noOpenat2 is set once by openRoot where the kernel (before Linux 5.6) or a seccomp filter has no
// openat2.
var noOpenat2 atomic.Bool

// beneath is the confinement of every path walk.
const beneath = unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS

// maxWalk is the longest path given to one call, safely below PATH_MAX.
const maxWalk = 4000

// OpenDir opens the directory at path, relative to d and confined to it. "" is d itself. A
// directory that the process may search but not read is opened for searching only, and listing it
// fails with EACCES.
func (d *Dir) OpenDir(path string) (*Dir, error) {
	fd, err := -1, error(unix.EPERM)
	if d.quiet {
		fd, err = d.walk(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOATIME)
	}
	if err == unix.EPERM { // O_NOATIME is for the owner
		fd, err = d.walk(path, unix.O_RDONLY|unix.O_DIRECTORY)
	}
	searchOnly := err == unix.EACCES
	if searchOnly {
		fd, err = d.walk(path, unix.O_PATH|unix.O_DIRECTORY)
	}
	if err != nil {
		return nil, err
	}
	return &Dir{Object: Object{fd}, searchOnly: searchOnly, quiet: d.quiet, oneMount: d.oneMount}, nil
}

// SearchOnly reports whether d was opened for searching only. Calls that need a readable descriptor
// fail on it.
func (d *Dir) SearchOnly() bool { return d.searchOnly }

// walk opens path below d; the path may be longer than PATH_MAX.
func (d *Dir) walk(path string, flags int) (int, error) {
	if path == "" {
		path = "."
	}
	at, owned, resolve := d.fd, false, uint64(beneath)
	if d.oneMount {
		resolve |= unix.RESOLVE_NO_XDEV
	}
	for len(path) > maxWalk {
		cut := strings.LastIndexByte(path[:maxWalk], '/')
		if cut <= 0 {
			break
		}
		fd, err := openBeneath(at, path[:cut], unix.O_PATH|unix.O_DIRECTORY, resolve)
		if owned {
			_ = unix.Close(at)
		}
		if err != nil {
			return -1, err
		}
		at, owned, path = fd, true, path[cut+1:]
	}
	fd, err := openBeneath(at, path, flags, resolve)
	if owned {
		_ = unix.Close(at)
	}
	return fd, err
}

func openBeneath(at int, path string, flags int, resolve uint64) (int, error) {
	if err := fault("openat2", path); err != nil {
		return -1, err
	}
	flags |= unix.O_CLOEXEC | unix.O_NOFOLLOW
	if noOpenat2.Load() {
		return openSteps(at, path, flags)
	}
	how := unix.OpenHow{Flags: uint64(flags), Resolve: resolve}
	fd := -1
	err := retry(func() (err error) {
		fd, err = unix.Openat2(at, path, &how)
		if err == unix.EAGAIN { // a concurrent rename: the kernel could not rule out an escape
			return unix.EINTR
		}
		return err
	})
	return fd, err
}

// openSteps replaces openat2 with [beneath], one component at a time. EXDEV: a component is not
// plain.
func openSteps(at int, path string, flags int) (int, error) {
	names := strings.Split(path, "/")
	owned := false
	for i, name := range names {
		if name == ".." || name == "" || (name == "." && len(names) > 1) {
			if owned {
				_ = unix.Close(at)
			}
			return -1, unix.EXDEV
		}
		f := unix.O_PATH | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC
		if i == len(names)-1 {
			f = flags
		}
		fd, err := unix.Openat(at, name, f, 0)
		if err == unix.ENOTDIR && i < len(names)-1 && isSymlink(at, name) {
			err = unix.ELOOP
		}
		if owned {
			_ = unix.Close(at)
		}
		if err != nil {
			return -1, err
		}
		at, owned = fd, true
	}
	return at, nil
}

func isSymlink(at int, name string) bool {
	var st Stat
	return unix.Fstatat(at, name, &st, unix.AT_SYMLINK_NOFOLLOW) == nil && st.Mode&unix.S_IFMT == unix.S_IFLNK
}

// CreateFile makes a regular file and opens it for reading and writing. EEXIST: the name exists.
// mode is exact if the umask is 0.
func (d *Dir) CreateFile(name string, mode uint32) (*File, error) {
	if err := fault("openat", name); err != nil {
		return nil, err
	}
	if !validName(name) {
		return nil, unix.EINVAL
	}
	fd, err := unix.Openat(d.fd, name, unix.O_CREAT|unix.O_EXCL|unix.O_RDWR|unix.O_NOFOLLOW|unix.O_CLOEXEC, mode)
	if err != nil {
		return nil, err
	}
	return &File{Object{fd}}, nil
}

// CreateTmpfile makes a regular file without a name on d's file system and opens it for reading and
// writing (O_TMPFILE). [Dir.Link] can give it a name, else it is gone once closed. EOPNOTSUPP: the
// file system has no such files. mode is exact if the umask is 0.
func (d *Dir) CreateTmpfile(mode uint32) (*File, error) {
	if err := fault("openat", "."); err != nil {
		return nil, err
	}
	fd, err := unix.Openat(d.fd, ".", unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, mode)
	if err != nil {
		return nil, err
	}
	return &File{Object{fd}}, nil
}

// Mknod makes a file, device, fifo or socket.
func (d *Dir) Mknod(name string, mode uint32, rdev uint64) error {
	if err := fault("mknodat", name); err != nil {
		return err
	}
	if !validName(name) {
		return unix.EINVAL
	}
	return unix.Mknodat(d.fd, name, mode, int(rdev))
}

// Mkdir makes a directory.
func (d *Dir) Mkdir(name string, mode uint32) error {
	if err := fault("mkdirat", name); err != nil {
		return err
	}
	if !validName(name) {
		return unix.EINVAL
	}
	return unix.Mkdirat(d.fd, name, mode)
}

// Symlink makes a symbolic link.
func (d *Dir) Symlink(target, name string) error {
	if err := fault("symlinkat", name); err != nil {
		return err
	}
	if !validName(name) {
		return unix.EINVAL
	}
	return unix.Symlinkat(target, d.fd, name)
}

// Link gives the object of src another name in d.
func (d *Dir) Link(src Ref, name string) error {
	if err := fault("linkat", name); err != nil {
		return err
	}
	if !validName(name) {
		return unix.EINVAL
	}
	if src.name == "" {
		err := unix.Linkat(src.fd, "", d.fd, name, unix.AT_EMPTY_PATH)
		if err != unix.ENOENT { // before Linux 6.10 without CAP_DAC_READ_SEARCH
			return err
		}
		return unix.Linkat(unix.AT_FDCWD, src.procPath(), d.fd, name, unix.AT_SYMLINK_FOLLOW)
	}
	return unix.Linkat(src.fd, src.name, d.fd, name, 0)
}

// Unlink removes a name that is not a directory.
func (d *Dir) Unlink(name string) error {
	if err := fault("unlinkat", name); err != nil {
		return err
	}
	if !validName(name) {
		return unix.EINVAL
	}
	return unix.Unlinkat(d.fd, name, 0)
}

// Rmdir removes an empty directory.
func (d *Dir) Rmdir(name string) error {
	if err := fault("rmdir", name); err != nil {
		return err
	}
	if !validName(name) {
		return unix.EINVAL
	}
	return unix.Unlinkat(d.fd, name, unix.AT_REMOVEDIR)
}

// Rename moves d's entry name to newName in to. flags are those of renameat2(2): RENAME_NOREPLACE,
// RENAME_EXCHANGE, RENAME_WHITEOUT.
func (d *Dir) Rename(name string, to *Dir, newName string, flags uint) error {
	call := "renameat"
	if flags != 0 {
		call = "renameat2"
	}
	if err := fault(call, newName); err != nil {
		return err
	}
	if !validName(name) || !validName(newName) {
		return unix.EINVAL
	}
	if flags == 0 {
		return unix.Renameat(d.fd, name, to.fd, newName)
	}
	return unix.Renameat2(d.fd, name, to.fd, newName, flags)
}

// NoRenameFlags reports whether a rename failed because the file system supports no flags, as NFS.
func NoRenameFlags(err error) bool { return err == unix.EINVAL || err == unix.ENOSYS }

// RenameNew moves d's entry name to newName in to. EEXIST: newName exists. If the file system does
// not support RENAME_NOREPLACE, RenameNew first looks newName up. Precondition: no other process or
// goroutine changes the entries of to meanwhile.
func (d *Dir) RenameNew(name string, to *Dir, newName string) error {
	err := d.Rename(name, to, newName, unix.RENAME_NOREPLACE)
	if !NoRenameFlags(err) {
		return err
	}
	var st Stat
	switch err := to.At(newName).Stat(&st); err {
	case nil:
		return unix.EEXIST
	case unix.ENOENT:
		return d.Rename(name, to, newName, 0)
	default:
		return err
	}
}

// Sync makes the directory and its entries durable (fsync).
func (d *Dir) Sync() error {
	if err := fault("fsync", ""); err != nil {
		return err
	}
	return d.readable(unix.Fsync)
}

// SyncFS makes all of the directory's file system durable (syncfs).
func (d *Dir) SyncFS() error {
	if err := fault("syncfs", ""); err != nil {
		return err
	}
	return d.readable(unix.Syncfs)
}

// readable calls f with the directory's descriptor, or with a new one if that is for searching
// only.
func (d *Dir) readable(f func(fd int) error) error {
	err := retry(func() error { return f(d.fd) })
	if err != unix.EBADF {
		return err
	}
	fd, err := unix.Openat(d.fd, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	return retry(func() error { return f(fd) })
}

// Unlock releases the lock of [Dir.Lock] and what [Dir.Publish] has published.
func (d *Dir) Unlock() error {
	if err := fault("flock", ""); err != nil {
		return err
	}
	if err := unix.FcntlFlock(uintptr(d.fd), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_UNLCK}); err != nil {
		return err
	}
	return retry(func() error { return unix.Flock(d.fd, unix.LOCK_UN) })
}

// Lock locks the directory for this process until [Dir.Unlock] or [Dir.Close] (flock). EWOULDBLOCK:
// another process has it.
func (d *Dir) Lock() error {
	if err := fault("flock", ""); err != nil {
		return err
	}
	return retry(func() error { return unix.Flock(d.fd, unix.LOCK_EX|unix.LOCK_NB) })
}
