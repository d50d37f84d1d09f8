//go:build amd64 || arm64

package host

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A process beside this one serves its requests over a socket. Most daemons never send one, and the
// start of the program takes time of a CPU and memory. So the process is a raw one at first, which
// has no other descriptors. When the first request comes, it executes the program in a child.

// Descriptors of that process, and of the program that it executes.
const (
	besideFD        = 3 // an end of the socket
	besideProgramFD = 4 // the program, until it is executed
)

// ignoredBeside are the signals that a process beside this one ignores: this process decides what a
// signal to a whole group means.
var ignoredBeside = [...]unix.Signal{unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM, unix.SIGUSR1, unix.SIGUSR2, unix.SIGPIPE}

// besideArgs is what the process reads.
type besideArgs struct {
	socket, null, program uintptr
	title, root, empty    *byte
	argv, envp            **byte
	commandLine, shown    []byte // the memory that /proc/PID/cmdline shows, and its new text
	oldMask               uint64
	ignore                struct { // struct sigaction of the kernel
		handler, flags, restorer uintptr
		mask                     uint64
	}

	poll        unix.PollFd
	none, pause unix.Timespec
}

// StartBeside starts the process. ps shows its name and argv. When this process writes to the
// connection, it executes this program with argv and one more variable in the environment. Until
// then, and in the program until that has read something, signals to a whole group do not end it.
// null is /dev/null. It has the mount namespace of the caller, and no descriptor but these. It ends
// when the connection is closed.
//
// It is an error if the program is linked dynamically: it could not be executed in a namespace
// without its libraries.
func StartBeside(name string, argv []string, variable string, null *os.File) (b *Beside, err error) {
	if err := checkStatic(); err != nil {
		return nil, err
	}
	if err := unix.CloseRange(unusedFD, unusedFD, 0); err != nil { // Linux before 5.9
		return nil, os.NewSyscallError("close_range", err)
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socketpair", err)
	}
	_ = unix.SetNonblock(pair[0], true) // so that no thread waits for replies
	ours := os.NewFile(uintptr(pair[0]), "socket")
	defer func() {
		_ = unix.Close(pair[1])
		if err != nil {
			_ = ours.Close()
		}
	}()
	program, err := openProgramAbove(besideProgramFD)
	if err != nil {
		return nil, err
	}
	defer func() { _ = unix.Close(program) }()
	a := &besideArgs{
		socket: uintptr(pair[1]), null: null.Fd(), program: uintptr(program),
		poll: unix.PollFd{Fd: besideFD, Events: unix.POLLIN}, pause: unix.Timespec{Nsec: attemptPause},
	}
	a.ignore.handler = 1 // SIG_IGN
	texts, err := syscall.SlicePtrFromStrings([]string{name, "/", ""})
	if err != nil {
		return nil, err
	}
	args, err := syscall.SlicePtrFromStrings(argv)
	if err != nil {
		return nil, err
	}
	// One CPU is enough, and each one has memory and threads.
	env, err := syscall.SlicePtrFromStrings(append(os.Environ(), variable, "GOMAXPROCS=1"))
	if err != nil {
		return nil, err
	}
	a.title, a.root, a.empty, a.argv, a.envp = texts[0], texts[1], texts[2], &args[0], &env[0]
	a.commandLine = commandLine()
	a.shown = make([]byte, len(a.commandLine)) // with zeroes at the end
	copy(a.shown[:max(0, len(a.shown)-1)], strings.Join(argv, "\x00"))
	pid, errno := unsignalled(&a.oldMask, func() (uintptr, syscall.Errno) { return beside(a) })
	runtime.KeepAlive(args)
	runtime.KeepAlive(env)
	if errno != 0 {
		return nil, fmt.Errorf("clone: %w", errno)
	}
	return &Beside{ours, Child{pid}}, nil
}

// unusedFD is a number that no descriptor has.
const unusedFD = 1 << 30

// openProgramAbove opens the program of this process, at a number above fd.
func openProgramAbove(fd int) (int, error) {
	low, err := unix.Open("/proc/self/exe", unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("cannot open the program: %w", err)
	}
	defer func() { _ = unix.Close(low) }()
	return unix.FcntlInt(uintptr(low), unix.F_DUPFD_CLOEXEC, fd+1)
}

// commandLine returns the memory that /proc/PID/cmdline shows. The runtime leaves the arguments
// where the kernel has put them: one after the other, each with a zero byte.
func commandLine() []byte {
	first := unsafe.StringData(os.Args[0])
	size := 0
	for _, arg := range os.Args {
		if unsafe.StringData(arg) != (*byte)(unsafe.Add(unsafe.Pointer(first), size)) {
			return nil // not as the kernel has put them
		}
		size += len(arg) + 1
	}
	return unsafe.Slice(first, size)
}

// beside returns the number of the raw process in this one, and never in that process.
//
//go:noinline
//go:norace
//go:nocheckptr
func beside(a *besideArgs) (pid uintptr, errno syscall.Errno) {
	pid, _, errno = syscall.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
	if errno != 0 || pid != 0 {
		return pid, errno
	}
	// The daemon may be of the same user, and loses rights that this process keeps.
	_, _, _ = syscall.RawSyscall6(unix.SYS_PRCTL, unix.PR_SET_DUMPABLE, 0, 0, 0, 0, 0)
	_, _, _ = syscall.RawSyscall6(unix.SYS_PRCTL, unix.PR_SET_NAME, uintptr(unsafe.Pointer(a.title)), 0, 0, 0, 0)
	_, _, _ = syscall.RawSyscall6(unix.SYS_CHDIR, uintptr(unsafe.Pointer(a.root)), 0, 0, 0, 0, 0) // the caller may unmount its own
	for i := range a.commandLine {                                                                // ps must not show a second daemon
		a.commandLine[i] = a.shown[i]
	}
	for _, s := range ignoredBeside {
		_, _, _ = syscall.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(s), uintptr(unsafe.Pointer(&a.ignore)), 0, unsafe.Sizeof(a.ignore.mask), 0, 0)
	}
	for fd := uintptr(0); fd < besideFD; fd++ {
		_, _, _ = syscall.RawSyscall6(unix.SYS_DUP3, a.null, fd, 0, 0, 0, 0)
	}
	if a.socket == besideFD {
		_, _, _ = syscall.RawSyscall6(unix.SYS_FCNTL, besideFD, unix.F_SETFD, 0, 0, 0, 0)
	} else {
		_, _, _ = syscall.RawSyscall6(unix.SYS_DUP3, a.socket, besideFD, 0, 0, 0, 0)
	}
	_, _, _ = syscall.RawSyscall6(unix.SYS_DUP3, a.program, besideProgramFD, unix.O_CLOEXEC, 0, 0, 0)
	_, _, _ = syscall.RawSyscall6(unix.SYS_CLOSE_RANGE, besideProgramFD+1, ^uintptr(0)>>1, 0, 0, 0, 0)
	_, _, _ = syscall.RawSyscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(&a.poll)), 1, 0, 0, 0, 0)
	for attempt := 0; attempt < startAttempts && a.poll.Revents == unix.POLLIN; attempt++ { // not POLLHUP: the end
		pid, _, errno = syscall.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
		if errno == 0 && pid == 0 {
			executeBeside(a)
		}
		if errno == 0 {
			_, _, _ = syscall.RawSyscall6(unix.SYS_WAIT4, pid, 0, unix.WALL, 0, 0, 0)
		}
		// A request that is still there was not read: a signal has ended the program before.
		_, _, _ = syscall.RawSyscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(&a.poll)), 1, uintptr(unsafe.Pointer(&a.none)), 0, 0, 0)
		if a.poll.Revents == unix.POLLIN {
			_, _, _ = syscall.RawSyscall6(unix.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&a.pause)), 0, 0, 0, 0, 0)
		}
	}
	rawExit(0)
	return 0, 0
}

// executeBeside executes the program. Its stack was not checked: it is nosplit.
//
//go:nosplit
//go:norace
//go:nocheckptr
func executeBeside(a *besideArgs) {
	_, _, _ = syscall.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&a.oldMask)), 0, unsafe.Sizeof(a.oldMask), 0, 0)
	_, _, _ = syscall.RawSyscall6(unix.SYS_EXECVEAT, besideProgramFD, uintptr(unsafe.Pointer(a.empty)),
		uintptr(unsafe.Pointer(a.argv)), uintptr(unsafe.Pointer(a.envp)), unix.AT_EMPTY_PATH, 0)
	rawExit(127)
}

// BesideConnection returns the end of the socket in the program that the process has executed.
// Reads block the thread.
func BesideConnection() *os.File {
	unix.CloseOnExec(besideFD)
	return os.NewFile(besideFD, "socket")
}
