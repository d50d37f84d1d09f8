package sys

import (
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// MountEntry is a line of a mount table.
type MountEntry struct {
	ID    int
	Dev   uint64 // of the file system
	Point string
	Type  string
}

// MountTable is the mounts of the calling thread's mount namespace that are below its root directory, in the order of the table: a
// mount over another one at the same place comes later.
func MountTable() ([]MountEntry, error) {
	table, err := readHost("/proc/thread-self/mountinfo")
	if err != nil {
		return nil, err
	}
	return parseMountTable(table), nil
}

// parseMountTable reads a mountinfo file (proc_pid_mountinfo(5)).
func parseMountTable(table string) (entries []MountEntry) {
	for line := range strings.Lines(table) {
		mount, super, found := strings.Cut(line, " - ")
		fields, rest := strings.Fields(mount), strings.Fields(super)
		if !found || len(fields) < 5 || len(rest) < 1 {
			continue
		}
		id, err := strconv.Atoi(fields[0])
		major, minor, _ := strings.Cut(fields[2], ":")
		a, errA := strconv.ParseUint(major, 10, 32)
		b, errB := strconv.ParseUint(minor, 10, 32)
		if err != nil || errA != nil || errB != nil {
			continue
		}
		entries = append(entries, MountEntry{id, unix.Mkdev(uint32(a), uint32(b)), unescapeOctal(fields[4]), rest[0]})
	}
	return entries
}

// RealPath returns the path of a directory without symbolic links. It sends no request to the file
// system that the directory is the root of, because that may be a dead mount.
func RealPath(path string) (string, error) {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	defer func() { _ = unix.Close(fd) }()
	real, err := os.Readlink(procFD + strconv.Itoa(fd))
	if err != nil {
		return "", unix.ENOENT
	}
	return real, nil
}
