package host

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Processes returns the processes of this pid namespace that /proc shows.
func Processes() ([]int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

func procFile(pid int, name string) string { return "/proc/" + strconv.Itoa(pid) + "/" + name }

// CommandLine returns the arguments of a process. The process and its user can change them. ENOENT:
// the process is gone, or is hidden.
func CommandLine(pid int) ([]string, error) {
	text, err := ReadFile(procFile(pid, "cmdline"))
	if err != nil || text == "" {
		return nil, unix.ENOENT
	}
	return strings.Split(strings.TrimSuffix(text, "\x00"), "\x00"), nil
}

// userHz is the unit of times in /proc/PID/stat, which is the same on all machines (USER_HZ).
const userHz = 100

// ProcessAge returns how long ago a process has begun.
func ProcessAge(pid int) (time.Duration, error) {
	text, err := ReadFile(procFile(pid, "stat"))
	if err != nil {
		return 0, err
	}
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil {
		return 0, err
	}
	start, err := parseStart(text)
	return max(0, time.Duration(now.Nano())-start), err
}

// parseStart returns when a process has begun, since boot, by its file stat (proc_pid_stat(5)). The
// second field is the name, which may contain blanks and parentheses.
func parseStart(stat string) (time.Duration, error) {
	const startField = 22 - 3 // counted from the third
	fields := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	if len(fields) <= startField {
		return 0, unix.EINVAL
	}
	ticks, err := strconv.ParseInt(fields[startField], 10, 64)
	return time.Duration(ticks) * (time.Second / userHz), err
}

// ServesDevice reports whether a process has open the FUSE connection of the file system with this
// device number. known is false if this process may not see that, and on kernels whose /proc does
// not show it (fuse_dev_show_fdinfo).
func ServesDevice(pid int, dev uint64) (serves, known bool) {
	links, err := os.ReadDir(procFile(pid, "fd"))
	if err != nil {
		return false, false
	}
	want := strconv.FormatUint(uint64(unix.Major(dev))<<20|uint64(unix.Minor(dev)), 10)
	for _, link := range links {
		target, err := os.Readlink(procFile(pid, "fd/"+link.Name()))
		if err != nil || filepath.Base(target) != "fuse" {
			continue
		}
		text, err := ReadFile(procFile(pid, "fdinfo/"+link.Name()))
		if err != nil {
			continue
		}
		connection, ok := fieldOf(text, "fuse_connection:")
		known = known || ok
		if ok && connection == want {
			return true, true
		}
	}
	return false, known
}

// Process is another process, for which this one can wait. Unlike a number, it never becomes
// another one.
type Process struct{ fd int }

// OpenProcess opens a process. ESRCH: there is none of this number.
func OpenProcess(pid int) (Process, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	return Process{fd}, err
}

// Close closes the descriptor.
func (p Process) Close() { _ = unix.Close(p.fd) }

// Signal sends a signal. ESRCH: the process has ended.
func (p Process) Signal(sig unix.Signal) error { return unix.PidfdSendSignal(p.fd, sig, nil, 0) }

// IsSupervisor reports whether a process is the supervisor of a daemon, which has the daemon's
// command line and descriptors.
func IsSupervisor(pid int) bool {
	name, err := ReadFile(procFile(pid, "comm"))
	return err == nil && name == supervisorName+"\n"
}

// supervisorName is the name of supervisors that ps shows.
const supervisorName = "fuse-overlay-sv"

// WaitEnd waits for the end of the process, but not longer than limit.
func (p Process) WaitEnd(limit time.Duration) (ended bool, err error) {
	n := 0
	err = retry(func() (err error) {
		n, err = unix.Poll([]unix.PollFd{{Fd: int32(p.fd), Events: unix.POLLIN}}, int(limit.Milliseconds()))
		return err
	})
	return n > 0, err
}
