package host

import (
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Use is a way in which a process uses a file system, so that it cannot be unmounted.
type Use string

// The uses that /proc shows. The first three are names of links in it.
const (
	UseDir  Use = "cwd"  // its working directory
	UseRoot Use = "root" // its root directory
	UseExe  Use = "exe"  // its program
	UseFile Use = "file" // an open file
	UseMap  Use = "map"  // a file in its memory
)

// UsesOf returns how a process uses each file system, by device number. No file system gets a
// request: one of them may hang. Only the first thread is looked at, whose directories nearly all
// programs share. EACCES or EPERM: this process may not see that. ENOENT: the process has ended.
func UsesOf(pid int) (map[uint64][]Use, error) {
	uses := map[uint64][]Use{}
	add := func(dev uint64, use Use) {
		if list := uses[dev]; len(list) == 0 || list[len(list)-1] != use {
			uses[dev] = append(list, use)
		}
	}
	for _, use := range []Use{UseDir, UseRoot, UseExe} {
		switch dev, err := deviceOf(procFile(pid, string(use))); {
		case err == nil:
			add(dev, use)
		case use == UseExe && err == unix.ENOENT: // a kernel thread
		default:
			return nil, err
		}
	}
	links, err := os.ReadDir(procFile(pid, "fd"))
	if err != nil {
		return nil, err
	}
	for _, link := range links {
		if dev, err := deviceOf(procFile(pid, "fd/"+link.Name())); err == nil { // else it has been closed
			add(dev, UseFile)
		}
	}
	maps, err := os.ReadFile(procFile(pid, "maps"))
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(maps)) {
		if dev, ok := parseMapping(line); ok {
			add(dev, UseMap)
		}
	}
	return uses, nil
}

// deviceOf returns the number of the file system that a link of /proc leads to. With an empty mask
// a FUSE file system answers from its cache, and shows the number to every user (fuse_getattr,
// fuse_update_get_attr).
func deviceOf(link string) (uint64, error) {
	var st unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, link, unix.AT_STATX_DONT_SYNC|unix.AT_NO_AUTOMOUNT, 0, &st)
	return unix.Mkdev(st.Dev_major, st.Dev_minor), err
}

// parseMapping returns the number of the file system of a line of /proc/PID/maps
// (proc_pid_maps(5)). ok is false for memory without a file.
func parseMapping(line string) (dev uint64, ok bool) {
	fields := strings.Fields(line) // addresses, rights, offset, device, inode
	if len(fields) < 5 {
		return 0, false
	}
	major, minor, _ := strings.Cut(fields[3], ":")
	a, errA := strconv.ParseUint(major, 16, 32)
	b, errB := strconv.ParseUint(minor, 16, 32)
	if errA != nil || errB != nil || a == 0 && b == 0 {
		return 0, false
	}
	return unix.Mkdev(uint32(a), uint32(b)), true
}

// PID returns the number of this process.
func PID() int { return os.Getpid() }

// ProcessName returns the name of a process, which the process can change. ENOENT: it has ended.
func ProcessName(pid int) (string, error) {
	text, err := ReadFile(procFile(pid, "comm"))
	return strings.TrimSuffix(text, "\n"), err
}

// MountNamespaceOf returns a name of the mount namespace of a process. It has the errors of
// [UsesOf].
func MountNamespaceOf(pid int) (string, error) { return os.Readlink(procFile(pid, "ns/mnt")) }

// MountTableOf returns the mounts below the root directory of a process, in its mount namespace.
func MountTableOf(pid int) ([]MountEntry, error) {
	table, err := ReadFile(procFile(pid, "mountinfo"))
	return ParseMountTable(table), err
}
