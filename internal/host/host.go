package host

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// HasSELinux reports whether the host enforces or checks SELinux labels; without, security.selinux means nothing.
func HasSELinux() bool {
	_, err := os.Stat("/sys/fs/selinux/enforce")
	return err == nil
}

// OverflowIDs are the user and the group id that stand for those that cannot be told (kernel.overflowuid, overflowgid).
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

// UserOf is the user whose rights on files a thread of this machine has (its fsuid), as this process sees its id. ENOENT where
// it is gone or in another pid namespace.
func UserOf(thread uint32) (uid uint32, err error) {
	ids, err := statusOf(thread, "Uid:")
	if err != nil || len(ids) != 4 { // real, effective, saved, of the file system
		return 0, unix.ENOENT
	}
	return ids[3], nil
}

// GroupsOf are the groups whose rights on files a thread has, as [UserOf]: its fsgid and the supplementary ones.
func GroupsOf(thread uint32) (gids []uint32, err error) {
	ids, err := statusOf(thread, "Gid:")
	if err != nil || len(ids) != 4 {
		return nil, unix.ENOENT
	}
	more, err := statusOf(thread, "Groups:")
	return append(more, ids[3]), err
}

// statusOf are the numbers of one line of a thread's status.
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

// MayProtect reports whether a thread may make files immutable or append-only: it has CAP_LINUX_IMMUTABLE in the first user
// namespace. False if that cannot be found out.
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

// OpenFilesLimit is the number of descriptors the process may have open.
func OpenFilesLimit() (uint64, error) {
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
		return 0, err
	}
	return l.Cur, nil
}

// OpenFiles is the number of descriptors that the process has open.
func OpenFiles() (int, error) {
	d, err := os.Open("/proc/self/fd")
	if err != nil {
		return 0, err
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	return len(names) - 1, err // without d
}

// Unmount takes the mount at path out of the tree; EBUSY while it is in use.
func Unmount(path string) error { return unix.Unmount(path, 0) }

// Detach takes the mount at path out of the tree at once, even while it is in use (umount2 with MNT_DETACH).
func Detach(path string) error { return unix.Unmount(path, unix.MNT_DETACH) }

// SyncMount writes back what the kernel still keeps for the file system at path (syncfs).
func SyncMount(path string) error {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	return unix.Syncfs(fd)
}

// RaiseReadAhead lets the kernel read the file system at path ahead by so many bytes, where the process may say so: to root,
// in /sys/class/bdi (Documentation/ABI/testing/sysfs-class-bdi).
func RaiseReadAhead(path string, bytes int) error {
	var st unix.Statx_t
	// Without a request to the mount, which may be the caller's own to serve.
	if err := unix.Statx(unix.AT_FDCWD, path, unix.AT_STATX_DONT_SYNC|unix.AT_NO_AUTOMOUNT, 0, &st); err != nil {
		return err
	}
	file := fmt.Sprintf("/sys/class/bdi/%d:%d/read_ahead_kb", st.Dev_major, st.Dev_minor)
	return os.WriteFile(file, []byte(strconv.Itoa(bytes>>10)), 0)
}

// PageSize is the size of the kernel's pages.
func PageSize() int { return pageSize }

var pageSize = os.Getpagesize()

// LinuxAtLeast compares the release of the running kernel, as uname(2) tells it; false where that cannot be read.
func LinuxAtLeast(major, minor int) bool {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return false
	}
	return atLeast(unix.ByteSliceToString(u.Release[:]), major, minor)
}

func atLeast(release string, major, minor int) bool {
	var a, b int
	if n, _ := fmt.Sscanf(release, "%d.%d", &a, &b); n != 2 {
		return false
	}
	return a > major || a == major && b >= minor
}
