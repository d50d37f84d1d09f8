package host

import (
	"fmt"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// Child is a process that this one has started.
type Child struct{ pid int }

// RunAgain starts this program again, with room for so many descriptors in the kernel's table of them, where it may have more. Only a
// table that one thread has to itself grows at once, and what is forked off gets a copy: so the fork is made by a thread with a
// table of its own. Where that is not allowed (a seccomp filter) the table is small in the beginning. attr.Files has one at least.
func RunAgain(argv []string, attr *syscall.ProcAttr, room int) (child Child, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocked: the thread and its table end with this function
		if unix.Unshare(unix.CLONE_FILES) == nil {
			_, _ = unix.FcntlInt(attr.Files[0], unix.F_DUPFD_CLOEXEC, room) // none that is in use
			// The main thread, if it is that, will stay, and must not keep what the child closes.
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
	return child, err
}

// Wait waits for the child's end and says how that was.
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
