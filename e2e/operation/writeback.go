package operation

import (
	"errors"
	"fmt"
	"os"
	"os/exec"

	"golang.org/x/sys/unix"
)

// writeBack runs the operations after which the daemon has all data of a file, and which are not
// fsync. Closing any descriptor is one.
func (s *Side) writeBack(o Op, fd int) string {
	if _, ok := regular(fd); !ok {
		return notFile
	}
	switch o.Name {
	case "slot-writeback":
		const wait = unix.SYNC_FILE_RANGE_WAIT_BEFORE | unix.SYNC_FILE_RANGE_WRITE | unix.SYNC_FILE_RANGE_WAIT_AFTER
		return Result(unix.SyncFileRange(fd, 0, 0, wait))
	case "slot-syncfs":
		if s.Overlay.Kernel {
			return "ok" // the kernel's overlayfs would sync the disk, and show the same afterwards
		}
		return Result(unix.Syncfs(fd))
	case "slot-dup":
		other, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		if err == nil {
			err = unix.Close(other)
		}
		return Result(err)
	case "slot-reopen":
		other, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", fd), unix.O_RDWR|unix.O_CLOEXEC, 0)
		if err == nil {
			err = unix.Close(other)
		}
		return Result(err)
	case "slot-process":
		return Result(closeByProcess(fd))
	}
	panic("unknown operation " + o.Name)
}

// closeByProcess runs a process that has the descriptor, and closes it when it ends.
func closeByProcess(fd int) error {
	other, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(other), "")
	cmd := exec.Command("/bin/true")
	cmd.ExtraFiles = []*os.File{f}
	return errors.Join(cmd.Run(), f.Close())
}
