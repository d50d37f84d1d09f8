package host

import (
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// Beside is a process of this program that runs beside this one.
type Beside struct {
	// Connection is this process's end of a socket. The end of the other process is the end of the
	// file.
	Connection *os.File
	child      Child
}

// besideFD is the other end of the socket in that process.
const besideFD = 3

// StartBeside starts this program again, with one more variable in its environment. null is
// /dev/null. The process inherits that, a socket and the mount namespace, and each descriptor that
// this process keeps open over an execve(2). It ends when it reads the end of the socket.
func StartBeside(argv []string, variable string, null *os.File) (*Beside, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socketpair", err)
	}
	defer func() { _ = unix.Close(pair[1]) }()
	if err := unix.SetNonblock(pair[0], true); err != nil { // so that no thread waits for replies
		_ = unix.Close(pair[0])
		return nil, os.NewSyscallError("fcntl", err)
	}
	ours := os.NewFile(uintptr(pair[0]), "socket")
	pid, err := syscall.ForkExec("/proc/self/exe", argv, &syscall.ProcAttr{
		// One CPU is enough, and each one has memory and threads.
		Dir: "/", Env: append(os.Environ(), variable, "GOMAXPROCS=1"),
		Files: []uintptr{null.Fd(), null.Fd(), null.Fd(), uintptr(pair[1])},
	})
	if err != nil {
		_ = ours.Close()
		return nil, os.NewSyscallError("fork", err)
	}
	return &Beside{ours, Child{pid}}, nil
}

// Reap frees the number of the process, which has ended, and returns how it has.
func (b *Beside) Reap() (how string, err error) { return b.child.Wait() }

// BesideConnection returns the end of the socket in a process that [StartBeside] has started. Reads
// block the thread.
func BesideConnection() *os.File {
	unix.CloseOnExec(besideFD)
	return os.NewFile(besideFD, "socket")
}
