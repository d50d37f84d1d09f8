package host

import (
	"fmt"
	"os"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// Child is a process that this process has started.
type Child struct{ pid int }

// RunAgain starts this program again, with at least one file in attr.Files. The child's descriptor
// table begins with room for that many descriptors. The kernel enlarges a table at once only if one
// thread alone uses it, and a child gets a copy. So a thread with a table of its own forks. If it
// may not have one (a seccomp filter), the child's table begins small. The files have to be open.
// The error is EMFILE if the limit of open files is too low for the child.
func RunAgain(argv []string, attr *syscall.ProcAttr, room int) (child Child, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocked, so the thread and its table end with this function
		if unix.Unshare(unix.CLONE_FILES) == nil {
			_, _ = unix.FcntlInt(attr.Files[0], unix.F_DUPFD_CLOEXEC, room) // none that is in use
			// The main thread does not end, and must not keep open what the child closes.
			defer func() {
				for _, fd := range attr.Files {
					_ = unix.Close(int(fd))
				}
			}()
		}
		// Not by os.Executable: its path may be gone or be another program by now.
		child.pid, err = syscall.ForkExec("/proc/self/exe", argv, attr)
	}()
	<-done
	if err == unix.EBADF { // dup3(2): the new number is not below the limit
		err = unix.EMFILE
	}
	return child, err
}

// Wait waits for the child's end and describes it: an exit status or a signal.
func (c Child) Wait() (how string, err error) {
	var status unix.WaitStatus
	err = retry(func() error { _, err := unix.Wait4(c.pid, &status, 0, nil); return err })
	switch {
	case err != nil:
		return "", fmt.Errorf("cannot wait for process %d: %w", c.pid, err)
	case status.Signaled():
		return "signal: " + status.Signal().String(), nil
	}
	return fmt.Sprintf("exit status %d", status.ExitStatus()), nil
}

// Beside is a process that runs beside this one, see [StartBeside].
type Beside struct {
	// Connection is this process's end of a socket. The end of the other process is the end of the
	// file.
	Connection *os.File
	child      Child
}

// Reap frees the number of the process, which has ended, and returns how it has.
func (b *Beside) Reap() (how string, err error) { return b.child.Wait() }

// RefuseTracing makes the kernel refuse the descriptors and the memory of this process to processes
// without CAP_SYS_PTRACE over it (PR_SET_DUMPABLE of prctl(2)). Without it, another process of the
// same user that has all of its capabilities could take them. The files of /proc/self belong to
// uid 0 of the user namespace then, so it is for uid 0 only. An execve(2) ends it.
func RefuseTracing() error {
	return os.NewSyscallError("prctl", unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0))
}

// ResidentMemory returns how many bytes of memory the process has mapped and in use
// (proc_pid_statm(5)).
func ResidentMemory() (uint64, error) {
	text, err := ReadFile("/proc/self/statm")
	if err != nil {
		return 0, err
	}
	var size, resident uint64
	if _, err := fmt.Sscan(text, &size, &resident); err != nil {
		return 0, unix.EIO
	}
	return resident * uint64(pageSize), nil
}
