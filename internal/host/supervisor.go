//go:build amd64 || arm64

package host

import (
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A supervisor is a second process that takes over when the process that it watches, the worker,
// ends. It shares the worker's table of descriptors (clone(2) with CLONE_FILES), so it has all that
// the worker opens later, at no cost for the worker. It is not executed: execve(2) would give it a
// table of its own. So it is a raw process. When the worker is dead, it starts the program again,
// and ends when the new worker has a supervisor of its own.

// resumeVariable holds the numbers of two descriptors for a new worker: the shared memory, and the
// pipe by which it reports that it serves.
const resumeVariable = "_FUSE_OVERLAY_RESUME"

// SupervisorConfig is what a supervisor needs. The offsets are places in Memory.
type SupervisorConfig struct {
	Memory *SharedMemory
	// Ended is the offset of 4 bytes. The supervisor ends with the worker if they are not 0.
	Ended int
	// Serving is the offset of 4 bytes: the Token of the worker that served last. A supervisor whose
	// worker has another Token leaves the mount to another supervisor.
	Serving int
	Token   uint32
	// NewProgram is the offset of 4 bytes. If they are not 0, the supervisor first tries the program
	// that lies at Program now.
	NewProgram int
	// Kept is the offset of the bits of the descriptors that the new worker inherits.
	Kept int
	// Program is the program of this process.
	Program *Program
}

// KeptBits is how many bits there are at SupervisorConfig.Kept: the number of the largest
// descriptor that can be kept, and 1.
const KeptBits = 1 << 20

// Program is an executable file: the file that this process runs, and the directory entry under
// which another version may lie later.
type Program struct {
	file, dir int
	name      string
}

// OpenProgram opens the program of this process. Call it before the process leaves the mounts of
// its caller.
func OpenProgram() (*Program, error) {
	const flags = unix.O_PATH | unix.O_CLOEXEC
	file, err := unix.Open("/proc/self/exe", flags, 0)
	if err != nil {
		return nil, fmt.Errorf("cannot open the program: %w", err)
	}
	p := &Program{file: file, dir: -1}
	if err := checkStatic(); err != nil {
		_ = unix.Close(file)
		return nil, err
	}
	if path, err := os.Executable(); err == nil {
		p.name = filepath.Base(path)
		if p.dir, err = unix.Open(filepath.Dir(path), flags|unix.O_DIRECTORY, 0); err != nil {
			p.dir = -1 // the program cannot be replaced
		}
	}
	return p, nil
}

// checkStatic returns an error if the program needs an interpreter, which has a path that the
// daemon's root does not have.
func checkStatic() error {
	f, err := elf.Open("/proc/self/exe")
	if err != nil {
		return fmt.Errorf("cannot read the program: %w", err)
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return errors.New("the program is linked dynamically")
		}
	}
	return nil
}

// Descriptors returns the open descriptors of the program, and its name.
func (p *Program) Descriptors() (file, dir int, name string) { return p.file, p.dir, p.name }

// InheritProgram is a Program of descriptors that this process has inherited. From then on file
// leads to the program of this process, which may be another one than that of the process before.
func InheritProgram(file, dir int, name string) *Program {
	unix.CloseOnExec(file)
	if self, err := unix.Open("/proc/self/exe", unix.O_PATH|unix.O_CLOEXEC, 0); err == nil {
		_ = unix.Dup3(self, file, unix.O_CLOEXEC) // fails for a number that is not open, which file is not
		_ = unix.Close(self)
	}
	if dir >= 0 {
		unix.CloseOnExec(dir)
	}
	return &Program{file, dir, name}
}

// Inherited returns the shared memory that this process has inherited from the worker before. nil:
// this process is the first worker.
func Inherited() (memory *SharedMemory, ready *ReadyPipe, err error) {
	text := os.Getenv(resumeVariable)
	if text == "" {
		return nil, nil, nil
	}
	_ = os.Unsetenv(resumeVariable)
	var fds [2]int
	if n, _ := fmt.Sscanf(text, "%d,%d", &fds[0], &fds[1]); n != len(fds) {
		return nil, nil, fmt.Errorf("%s is %q", resumeVariable, text)
	}
	unix.CloseOnExec(fds[1])
	memory, err = InheritSharedMemory(fds[0])
	return memory, &ReadyPipe{fds[1]}, err
}

// ReadyPipe is where a new worker reports to the supervisor that has started it.
type ReadyPipe struct{ fd int }

// Report ends the supervisor that has started this process.
func (p *ReadyPipe) Report() error {
	defer func() { _ = unix.Close(p.fd) }()
	_, err := unix.Write(p.fd, []byte{1})
	return err
}

// CanSupervise is whether supervisors are built for this CPU.
const CanSupervise = true

// Supervisor is a running supervisor.
type Supervisor struct{ pid int }

// superviseArgs is what the supervisor reads.
type superviseArgs struct {
	worker       int32 // pidfd
	readyFD      int32 // number of the new worker's end of the pipe
	file, dir    int32
	ended, fresh *uint32
	serving      *uint32
	token        uint32
	kept         *[KeptBits / 64]uint64
	name, empty  *byte
	title, root  *byte
	argv, envp   **byte
	oldMask      uint64

	pipe  [2]int32
	poll  unix.PollFd
	pause unix.Timespec
	byte  [8]byte
}

// StartSupervisor starts a supervisor of this process, which starts the program with argv and this
// process's environment.
func StartSupervisor(argv []string, c SupervisorConfig) (s *Supervisor, err error) {
	worker, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		return nil, fmt.Errorf("pidfd_open: %w", err)
	}
	// This number stays free for the pipe.
	ready, err := unix.FcntlInt(uintptr(c.Memory.fd), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		_ = unix.Close(worker)
		return nil, err
	}
	defer func() {
		if err != nil {
			_, _ = unix.Close(worker), unix.Close(ready)
		}
	}()
	a := &superviseArgs{
		worker: int32(worker), readyFD: int32(ready), file: int32(c.Program.file), dir: int32(c.Program.dir),
		ended: c.Memory.word(c.Ended), fresh: c.Memory.word(c.NewProgram),
		serving: c.Memory.word(c.Serving), token: c.Token,
		kept: (*[KeptBits / 64]uint64)(unsafe.Pointer(&c.Memory.bytes[c.Kept])),
		poll: unix.PollFd{Fd: int32(worker), Events: unix.POLLIN}, pause: unix.Timespec{Nsec: attemptPause},
	}
	environ := append(os.Environ(), resumeVariable+"="+strconv.Itoa(c.Memory.fd)+","+strconv.Itoa(ready))
	args, err := syscall.SlicePtrFromStrings(argv)
	if err != nil {
		return nil, err
	}
	env, err := syscall.SlicePtrFromStrings(environ)
	if err != nil {
		return nil, err
	}
	texts, err := syscall.SlicePtrFromStrings([]string{c.Program.name, "", supervisorName, "/"})
	if err != nil {
		return nil, err
	}
	a.argv, a.envp, a.name, a.empty, a.title, a.root = &args[0], &env[0], texts[0], texts[1], texts[2], texts[3]

	pid, errno := unsignalled(&a.oldMask, func() (uintptr, syscall.Errno) { return supervise(a) })
	runtime.KeepAlive(args)
	runtime.KeepAlive(env)
	if errno != 0 {
		return nil, fmt.Errorf("clone: %w", errno)
	}
	return &Supervisor{pid}, nil
}

// Wait waits for the end of the supervisor, which comes before that of this process only if another
// process has killed it.
func (s *Supervisor) Wait() {
	_ = retry(func() error { _, err := unix.Wait4(s.pid, nil, unix.WALL, nil); return err })
}

// supervise returns the supervisor's number in the worker, and never in the supervisor.
//
//go:noinline
//go:norace
//go:nocheckptr
func supervise(a *superviseArgs) (pid uintptr, errno syscall.Errno) {
	pid, _, errno = syscall.RawSyscall6(unix.SYS_CLONE, unix.CLONE_FILES, 0, 0, 0, 0, 0)
	if errno != 0 || pid != 0 {
		return pid, errno
	}
	_, _, _ = syscall.RawSyscall6(unix.SYS_PRCTL, unix.PR_SET_NAME, uintptr(unsafe.Pointer(a.title)), 0, 0, 0, 0)
	_, _, _ = syscall.RawSyscall6(unix.SYS_CHDIR, uintptr(unsafe.Pointer(a.root)), 0, 0, 0, 0, 0) // the caller may unmount its own
	for {
		_, _, errno = syscall.RawSyscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(&a.poll)), 1, 0, 0, 0, 0)
		if errno == 0 {
			break
		}
	}
	if *a.ended != 0 || *a.serving != a.token {
		rawExit(0)
	}
	for attempt := 0; attempt < startAttempts; attempt++ {
		_, _, errno = syscall.RawSyscall6(unix.SYS_PIPE2, uintptr(unsafe.Pointer(&a.pipe)), unix.O_CLOEXEC, 0, 0, 0, 0)
		if errno != 0 {
			break
		}
		pid, _, errno = syscall.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
		if errno == 0 && pid == 0 {
			becomeWorker(a, attempt == 0)
		}
		_, _, _ = syscall.RawSyscall6(unix.SYS_CLOSE, uintptr(a.pipe[1]), 0, 0, 0, 0, 0)
		if errno == 0 {
			n, _, _ := syscall.RawSyscall6(unix.SYS_READ, uintptr(a.pipe[0]), uintptr(unsafe.Pointer(&a.byte)), 1, 0, 0, 0)
			if n == 1 {
				break
			}
			_, _, _ = syscall.RawSyscall6(unix.SYS_WAIT4, pid, 0, unix.WALL, 0, 0, 0)
			if *a.ended != 0 || *a.serving != a.token { // it has served
				break
			}
		}
		_, _, _ = syscall.RawSyscall6(unix.SYS_CLOSE, uintptr(a.pipe[0]), 0, 0, 0, 0, 0)
		_, _, _ = syscall.RawSyscall6(unix.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&a.pause)), 0, 0, 0, 0, 0)
	}
	rawExit(0)
	return 0, 0
}

// becomeWorker executes the program, in a child of the supervisor. Its stack was not checked: it is
// nosplit.
//
//go:nosplit
//go:norace
//go:nocheckptr
func becomeWorker(a *superviseArgs, first bool) {
	_, _, _ = syscall.RawSyscall6(unix.SYS_DUP3, uintptr(a.pipe[1]), uintptr(a.readyFD), 0, 0, 0, 0)
	for i := range a.kept {
		for bits, fd := a.kept[i], uintptr(i*64); bits != 0; bits, fd = bits>>1, fd+1 {
			if bits&1 != 0 {
				_, _, _ = syscall.RawSyscall6(unix.SYS_FCNTL, fd, unix.F_SETFD, 0, 0, 0, 0)
			}
		}
	}
	_, _, _ = syscall.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&a.oldMask)), 0, 8, 0, 0)
	if first && *a.fresh != 0 && a.dir >= 0 {
		_, _, _ = syscall.RawSyscall6(unix.SYS_EXECVEAT, uintptr(a.dir), uintptr(unsafe.Pointer(a.name)),
			uintptr(unsafe.Pointer(a.argv)), uintptr(unsafe.Pointer(a.envp)), 0, 0)
	}
	_, _, _ = syscall.RawSyscall6(unix.SYS_EXECVEAT, uintptr(a.file), uintptr(unsafe.Pointer(a.empty)),
		uintptr(unsafe.Pointer(a.argv)), uintptr(unsafe.Pointer(a.envp)), unix.AT_EMPTY_PATH, 0)
	rawExit(127)
}
