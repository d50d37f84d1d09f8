package host

import (
	"strconv"
	"strings"
)

// FileLock is a lock on a file.
type FileLock struct {
	// Kind is FLOCK, OFDLCK or POSIX.
	Kind string
	// PID is the process that has taken the lock, in this pid namespace. -1: the kernel does not know
	// it (OFDLCK).
	PID int
	// Inode identifies the file: the device of its file system, and the inode number.
	Inode string
	// Start is the first byte of a byte-range lock.
	Start int64
}

// FileLocks returns all locks of the machine (/proc/locks), without those of processes in other pid
// namespaces that the kernel knows. Any user may read it.
func FileLocks() ([]FileLock, error) {
	table, err := ReadFile("/proc/locks")
	if err != nil {
		return nil, err
	}
	return ParseFileLocks(table), nil
}

// ParseFileLocks parses a table of locks (proc_locks(5)). It leaves out processes that wait for a
// lock, and lines that are malformed.
func ParseFileLocks(table string) (locks []FileLock) {
	for line := range strings.Lines(table) {
		fields := strings.Fields(line) // number, kind, how it counts, type, process, inode, first, last
		if len(fields) != 8 || fields[1] == "->" {
			continue
		}
		pid, err := strconv.Atoi(fields[4])
		start, err2 := strconv.ParseInt(fields[6], 10, 64)
		if err != nil || err2 != nil {
			continue
		}
		locks = append(locks, FileLock{fields[1], pid, fields[5], start})
	}
	return locks
}
