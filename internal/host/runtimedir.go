package host

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// RuntimeDir is a directory in which the programs of one user keep their sockets.
type RuntimeDir struct {
	Path string
	// Owner is the user, as this process sees the id.
	Owner uint32
}

// RuntimeDirs returns the runtime directories that this process may have, the best first: /run for
// root of the first user namespace. Other users have $XDG_RUNTIME_DIR (XDG Base Directory
// Specification), and /run/user/UID, where UID is the user's id outside of the user namespace of
// the process.
func RuntimeDirs() (dirs []RuntimeDir) {
	user := uint32(os.Geteuid())
	if IsHostRoot() {
		return []RuntimeDir{{"/run", user}}
	}
	if dir := os.Getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(dir) {
		dirs = append(dirs, RuntimeDir{dir, user})
	}
	return append(dirs, RuntimeDir{runtimeDirOf(outerID(user)), user})
}

// RuntimeDirOf returns the runtime directory that another user of the first user namespace has by
// default.
func RuntimeDirOf(user uint32) RuntimeDir {
	if user == 0 {
		return RuntimeDir{"/run", 0}
	}
	return RuntimeDir{runtimeDirOf(user), user}
}

func runtimeDirOf(user uint32) string { return "/run/user/" + strconv.FormatUint(uint64(user), 10) }

// outerID returns the id that a user of this user namespace has in the parent namespace. An id that
// is not mapped is returned as it is.
func outerID(user uint32) uint32 {
	text, err := os.ReadFile("/proc/self/uid_map")
	if err != nil {
		return user
	}
	for line := range strings.Lines(string(text)) {
		var inside, outside, length uint64
		n, _ := fmt.Sscan(line, &inside, &outside, &length)
		if n == 3 && uint64(user) >= inside && uint64(user)-inside < length {
			return uint32(outside + uint64(user) - inside)
		}
	}
	return user
}

// Folder is a directory of the host that is held open. It stays reachable when its path is gone.
type Folder struct {
	fd   int
	path string // for messages
}

// Open opens the directory. It fails if other users could replace what lies in it.
func (d RuntimeDir) Open() (*Folder, error) {
	fd, err := unix.Open(d.Path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", d.Path, err)
	}
	const anyUser = uint32(0o077)
	forbidden := anyUser
	if d.Owner == 0 && d.Path == "/run" { // which all users may read
		forbidden = 0o022
	}
	return checked(&Folder{fd, d.Path}, d.Owner, forbidden)
}

// privateMode is the mode of a folder for one user alone.
const privateMode = 0o700

// Make opens a folder in f, which belongs to a user and which no other user may enter, and makes it
// before if it is missing. It fails if the folder is another one, or a symbolic link.
func (f *Folder) Make(name string, owner uint32) (*Folder, error) {
	if err := unix.Mkdirat(f.fd, name, privateMode); err != nil && err != unix.EEXIST {
		return nil, fmt.Errorf("%s/%s: %w", f.path, name, err)
	}
	return f.Enter(name, owner)
}

// Enter is [Folder.Make] for a folder that is there.
func (f *Folder) Enter(name string, owner uint32) (*Folder, error) {
	path := f.path + "/" + name
	fd, err := unix.Openat(f.fd, name, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return checked(&Folder{fd, path}, owner, 0o777&^privateMode)
}

// checked returns f if it belongs to owner and none of the permissions in forbidden is given. It
// closes f otherwise.
func checked(f *Folder, owner, forbidden uint32) (*Folder, error) {
	var st unix.Stat_t
	err := unix.Fstat(f.fd, &st)
	switch mode := st.Mode & 0o777; {
	case err != nil:
		err = fmt.Errorf("%s: %w", f.path, err)
	case st.Uid != owner:
		err = fmt.Errorf("%s belongs to user %d, not to user %d: %w", f.path, st.Uid, owner, unix.EPERM)
	case mode&forbidden != 0:
		err = fmt.Errorf("%s has mode %#o, which gives other users access: %w", f.path, mode, unix.EPERM)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// Close closes the descriptor.
func (f *Folder) Close() { _ = unix.Close(f.fd) }

// FD returns the descriptor, for a process that inherits it.
func (f *Folder) FD() int { return f.fd }

// InheritFolder takes over a folder of another process.
func InheritFolder(fd int, path string) *Folder {
	unix.CloseOnExec(fd)
	return &Folder{fd, path}
}

// Path returns the path by which the folder was opened, for messages.
func (f *Folder) Path() string { return f.path }

// at returns a path of a name in the folder that does not depend on where the folder is, nor on the
// mounts and the root of the process, but on /proc.
func (f *Folder) at(name string) string { return fmt.Sprintf("/proc/thread-self/fd/%d/%s", f.fd, name) }

// Identity is a file that a name leads to. The zero value is none.
type Identity struct {
	inode uint64
	birth unix.StatxTimestamp // since inode numbers are used again
}

// Identify returns what a name in the folder leads to.
func (f *Folder) Identify(name string) Identity {
	var st unix.Statx_t
	if unix.Statx(f.fd, name, unix.AT_SYMLINK_NOFOLLOW, unix.STATX_INO|unix.STATX_BTIME, &st) != nil {
		return Identity{}
	}
	return Identity{st.Ino, st.Btime}
}

// Remove removes a name from the folder that is none of a directory. A missing one is no error.
func (f *Folder) Remove(name string) error {
	if err := unix.Unlinkat(f.fd, name, 0); err != nil && err != unix.ENOENT {
		return fmt.Errorf("%s/%s: %w", f.path, name, err)
	}
	return nil
}
