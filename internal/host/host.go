package host

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// HasSELinux reports whether the kernel checks SELinux labels. If not, security.selinux has no
// meaning.
func HasSELinux() bool {
	_, err := os.Stat("/sys/fs/selinux/enforce")
	return err == nil
}

// OverflowIDs returns the ids that stand for a user and a group without an id in this user
// namespace (kernel.overflowuid and overflowgid).
func OverflowIDs() (uid, gid uint32) { return overflowID("uid"), overflowID("gid") }

func overflowID(kind string) uint32 {
	const usual = 65534 // DEFAULT_OVERFLOWUID of linux/highuid.h
	text, err := os.ReadFile("/proc/sys/kernel/overflow" + kind)
	if err != nil {
		return usual
	}
	id, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 32)
	if err != nil {
		return usual
	}
	return uint32(id)
}

// IsHostRoot reports whether this process is root of the first user namespace.
func IsHostRoot() bool {
	if os.Geteuid() != 0 {
		return false
	}
	text, err := os.ReadFile("/proc/self/uid_map")
	fields := strings.Fields(string(text))
	return err != nil || len(fields) == 3 && fields[0] == "0" && fields[1] == "0" && fields[2] == "4294967295"
}

// UserOf returns the fsuid of a thread, as this process sees the id. ENOENT: the thread is gone, or
// is not in this pid namespace.
func UserOf(thread uint32) (uid uint32, err error) {
	ids, err := statusOf(thread, "Uid:")
	if err != nil || len(ids) != 4 { // real, effective, saved, of the file system
		return 0, unix.ENOENT
	}
	return ids[3], nil
}

// GroupsOf returns the fsgid and the supplementary groups of a thread. Ids and errors are as in
// [UserOf].
func GroupsOf(thread uint32) (gids []uint32, err error) {
	ids, err := statusOf(thread, "Gid:")
	if err != nil || len(ids) != 4 {
		return nil, unix.ENOENT
	}
	more, err := statusOf(thread, "Groups:")
	return append(more, ids[3]), err
}

// statusOf returns the numbers of one line of /proc/THREAD/status.
func statusOf(thread uint32, line string) (numbers []uint32, err error) {
	text, err := os.ReadFile("/proc/" + strconv.FormatUint(uint64(thread), 10) + "/status")
	if err != nil {
		return nil, unix.ENOENT
	}
	for l := range strings.Lines(string(text)) {
		values, ok := strings.CutPrefix(l, line)
		if !ok {
			continue
		}
		for _, value := range strings.Fields(values) {
			n, err := strconv.ParseUint(value, 10, 32)
			if err != nil {
				return nil, err
			}
			numbers = append(numbers, uint32(n))
		}
		return numbers, nil
	}
	return nil, unix.ENOENT
}

// MayProtect reports whether a thread may make files immutable or append-only, because it has
// CAP_LINUX_IMMUTABLE in the first user namespace. It returns false if /proc does not show that.
func MayProtect(thread uint32) bool {
	proc := "/proc/" + strconv.FormatUint(uint64(thread), 10)
	its, err := os.Readlink(proc + "/ns/user")
	if err != nil {
		return false
	}
	if ours, err := os.Readlink("/proc/self/ns/user"); err != nil || its != ours || !IsHostRoot() {
		return false
	}
	text, err := os.ReadFile(proc + "/status")
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(text)) {
		if caps, ok := strings.CutPrefix(line, "CapEff:"); ok {
			set, err := strconv.ParseUint(strings.TrimSpace(caps), 16, 64)
			return err == nil && set&(1<<unix.CAP_LINUX_IMMUTABLE) != 0
		}
	}
	return false
}

// OpenFilesLimit returns how many descriptors the process may have open (RLIMIT_NOFILE).
func OpenFilesLimit() (uint64, error) {
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
		return 0, err
	}
	return l.Cur, nil
}

// OpenFiles returns how many descriptors the process has open.
func OpenFiles() (int, error) {
	d, err := os.Open("/proc/self/fd")
	if err != nil {
		return 0, err
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	return len(names) - 1, err // without d
}

// Unmount unmounts what is mounted at path. EBUSY: it is in use.
func Unmount(path string) error { return unix.Unmount(path, 0) }

// Detach unmounts what is mounted at path, even while it is in use (umount2 with MNT_DETACH).
func Detach(path string) error { return unix.Unmount(path, unix.MNT_DETACH) }

// Remount gives the mount at path, and its file system, the flags of mount(2).
func Remount(path string, flags uintptr) error {
	return unix.Mount("", path, "", unix.MS_REMOUNT|flags, "")
}

// RefusesChanges reports whether the file system at path refuses all changes (EROFS). On a mount
// that can be written that is what its server does. Nothing changes.
func RefusesChanges(path string) bool {
	return unix.Removexattr(path, "user.fuse-overlay.none") == unix.EROFS
}

// SyncMount writes back the dirty pages of the file system at path (syncfs).
func SyncMount(path string) error {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	return unix.Syncfs(fd)
}

// ReadAhead is the file in /sys that has how much the kernel reads ahead on a file system
// (Documentation/ABI/testing/sysfs-class-bdi).
type ReadAhead struct{ file *os.File }

// OpenReadAhead opens the file of the file system at path. EACCES: only root may.
func OpenReadAhead(path string) (*ReadAhead, error) {
	var st unix.Statx_t
	// DONT_SYNC: the mount may be this process's own, which does not serve requests yet.
	if err := unix.Statx(unix.AT_FDCWD, path, unix.AT_STATX_DONT_SYNC|unix.AT_NO_AUTOMOUNT, 0, &st); err != nil {
		return nil, err
	}
	file, err := os.OpenFile(fmt.Sprintf("/sys/class/bdi/%d:%d/read_ahead_kb", st.Dev_major, st.Dev_minor), os.O_WRONLY, 0)
	if err != nil {
		return nil, err
	}
	return &ReadAhead{file}, nil
}

// Set sets how many bytes the kernel reads ahead, and closes the file.
func (r *ReadAhead) Set(bytes int) error {
	_, err := r.file.WriteString(strconv.Itoa(bytes >> 10))
	return errors.Join(err, r.file.Close())
}

// Close closes the file.
func (r *ReadAhead) Close() { _ = r.file.Close() }

// PageSize returns the size of a page in bytes.
func PageSize() int { return pageSize }

var pageSize = os.Getpagesize()

// LinuxAtLeast reports whether the running kernel has at least this version (uname(2)). It returns
// false for a release without numbers.
func LinuxAtLeast(major, minor int) bool {
	return atLeast(KernelRelease(), major, minor)
}

// KernelRelease returns the release of the running kernel (uname(2)).
func KernelRelease() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return ""
	}
	return unix.ByteSliceToString(u.Release[:])
}

func atLeast(release string, major, minor int) bool {
	var a, b int
	if n, _ := fmt.Sscanf(release, "%d.%d", &a, &b); n != 2 {
		return false
	}
	return a > major || a == major && b >= minor
}
