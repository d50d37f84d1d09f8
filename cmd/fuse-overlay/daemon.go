package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/fuse-overlay/fuse-overlay/fs/conn"
	"github.com/fuse-overlay/fuse-overlay/internal/host"
)

// A daemon starts in two processes, because a Go program cannot fork. The first runs the program
// again, in a session and a mount namespace (apart.go) of its own, and waits. The second mounts and
// reports the result through a pipe. It then closes all descriptors of its caller, and leaves the
// caller's directory and session. The first ends with the exit code.

// resultVariable holds the number of the pipe's descriptor in the second process.
const resultVariable = "_FUSE_OVERLAY_RESULT_FD"

// The pipe contains reportOK, or reportFailed and one line, or nothing if the daemon died.
const (
	reportOK     = "ok"
	reportFailed = "failed: "
)

// standardStreams are stdin, stdout and stderr: the first descriptor after them is free for use.
const standardStreams = 3

// farDescriptor is a descriptor number that the daemon's table has room for from the start, if the
// limit of open files allows it. The kernel doubles a table that is full, and a process with
// threads waits for an RCU grace period each time (expand_fdtable), 8 to 16 ms. Without the room,
// the first walk of a tree would wait five times. A table keeps its size, over an exec too. The
// room is twice this number, for layers, cached handles and removed files in use.
const farDescriptor = 4096

// startDaemon returns nil when the mount answers.
func startDaemon(argv []string, req *request) error {
	// The daemon checks the mount point, but it cannot inherit a descriptor that is not open.
	if fd, ok := conn.DeviceFD(req.mount.Point); ok {
		if err := checkDeviceFD(fd); err != nil {
			return err
		}
	}
	var probe *host.Socket
	if needsLossProbe(req) && host.MayMount() {
		probe = startLossClientHere()
	}
	return runAgain(argv, req.mount.Point, probe)
}

// runAgain runs the program again with a result pipe and waits for the result. If probe is not nil,
// the daemon inherits it: the server's end of the probe for lost appends.
func runAgain(argv []string, mountPoint string, probe *host.Socket) error {
	r, w, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("cannot make a pipe to the daemon: %w", err)
	}
	defer r.Close()
	if err := closeOnExec(); err != nil {
		return err
	}

	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("cannot start the daemon: %w", err)
	}
	defer null.Close()
	standard := []uintptr{null.Fd(), null.Fd(), os.Stderr.Fd()} // stderr for the trace of a crash, until the mount is up
	passing := []passedOn{{resultVariable, []uintptr{w.Fd()}}}
	if probe != nil {
		passing = append(passing, passedOn{lossServerVariable, []uintptr{probe.Fd()}})
	}
	daemon, err := spawn(argv, standard, passing, mountPoint)
	w.Close()
	if probe != nil {
		probe.Close() // when the daemon ends, the client finds the connection closed
	}
	if err != nil {
		return fmt.Errorf("cannot start the daemon: %w", err)
	}

	report, err := io.ReadAll(r)
	if err != nil {
		return fmt.Errorf("cannot read the result of the daemon: %w", err)
	}
	switch text := string(report); {
	case text == reportOK:
		return nil
	case strings.HasPrefix(text, reportFailed):
		_, _ = daemon.Wait() // the daemon is gone when the caller reads the error
		return errors.New(text[len(reportFailed):])
	default:
		how, err := daemon.Wait()
		if err != nil {
			how = err.Error()
		}
		return fmt.Errorf("the daemon ended before the mount was up (%s)", how)
	}
}

// passedOn holds descriptors of this process that the daemon inherits. The environment variable
// holds their numbers in the daemon.
type passedOn struct {
	variable string
	fds      []uintptr
}

// spawn starts the daemon, in a mount namespace of its own where it may have one.
func spawn(argv []string, standard []uintptr, passing []passedOn, mountPoint string) (host.Child, error) {
	start := func(flags uintptr, passing ...passedOn) (host.Child, error) {
		var fds []uintptr
		for _, p := range passing {
			fds = append(fds, p.fds...)
		}
		passed, numbers := passedFiles(fds, mountPoint)
		env := os.Environ()
		for _, p := range passing {
			env = append(env, p.variable+"="+joinNumbers(numbers[:len(p.fds)]))
			numbers = numbers[len(p.fds):]
		}
		return host.RunAgain(argv, &syscall.ProcAttr{
			Env: env, Files: append(slices.Clone(standard), passed...), Sys: &syscall.SysProcAttr{Setsid: true, Cloneflags: flags},
		}, farDescriptor)
	}
	if caller := callersNamespace(); caller != nil {
		defer caller.Close()
		child, err := start(syscall.CLONE_NEWNS, append(slices.Clone(passing), passedOn{callerVariable, caller.Descriptors()})...)
		if !refusesNamespace(err) {
			return child, err
		}
		os.Setenv(stayVariable, err.Error())
	}
	return start(0, passing...)
}

// joinNumbers returns the value of a variable that holds numbers of descriptors.
func joinNumbers(numbers []int) string {
	words := make([]string, len(numbers))
	for i, n := range numbers {
		words[i] = strconv.Itoa(n)
	}
	return strings.Join(words, ",")
}

// closeOnExec keeps the daemon from inheriting the descriptors that this process has inherited. The
// daemon gets its descriptors explicitly.
func closeOnExec() error {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return fmt.Errorf("cannot list open files (is /proc mounted?): %w", err)
	}
	for _, e := range entries {
		if fd, err := strconv.Atoi(e.Name()); err == nil && fd >= standardStreams {
			syscall.CloseOnExec(fd)
		}
	}
	return nil
}

// closed is a descriptor that is not passed on.
const closed = ^uintptr(0)

// passedFiles returns the descriptors that the daemon inherits after the standard streams. The FUSE
// device of a mount point /dev/fd/N keeps its number. Those of passing get the first free numbers,
// which numbers returns.
func passedFiles(passing []uintptr, mountPoint string) (files []uintptr, numbers []int) {
	if device, ok := conn.DeviceFD(mountPoint); ok && device >= standardStreams {
		files = slices.Repeat([]uintptr{closed}, device-standardStreams+1)
		files[device-standardStreams] = uintptr(device)
	}
	for _, fd := range passing {
		at := slices.Index(files, closed)
		if at < 0 {
			at = len(files)
			files = append(files, closed)
		}
		files[at] = fd
		numbers = append(numbers, standardStreams+at)
	}
	return files, numbers
}

// resultPipe is the daemon's end of the pipe.
type resultPipe struct{ w *os.File }

// inheritedResult is nil in a process that startDaemon did not start.
func inheritedResult() *resultPipe {
	fd, err := strconv.Atoi(os.Getenv(resultVariable))
	if err != nil {
		return nil
	}
	os.Unsetenv(resultVariable)
	syscall.CloseOnExec(fd) // fusermount3 would keep it open
	return &resultPipe{os.NewFile(uintptr(fd), "result pipe")}
}

// success fails if the first process no longer waits for the result.
func (p *resultPipe) success() error {
	_, err := p.w.WriteString(reportOK)
	return errors.Join(err, p.w.Close())
}

func (p *resultPipe) failure(err error) {
	_, _ = p.w.WriteString(reportFailed + userMessage(err))
	p.w.Close()
}

// releaseCaller closes the caller's stderr and leaves the caller's directory. The caller may wait
// for the end of its pipe on stderr, or unmount the file system of its directory. The daemon has
// not inherited stdin and stdout: stdin is /dev/null.
func releaseCaller() error {
	if err := syscall.Dup3(int(os.Stdin.Fd()), int(os.Stderr.Fd()), 0); err != nil {
		return os.NewSyscallError("dup3", err)
	}
	return os.Chdir("/")
}

// setProcessName sets the name that ps and pgrep show. Without it, the daemon is called "exe".
func setProcessName(name string) {
	_ = os.WriteFile("/proc/self/comm", []byte(name), 0) // the name is not needed
}
