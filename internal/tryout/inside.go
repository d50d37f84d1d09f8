package tryout

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"

	"github.com/fuse-overlay/fuse-overlay/internal/host"
)

// Exit codes of a command that was not run, as env(1) has them.
const (
	CodeFailed        = 125 // the copy of the system could not be made
	CodeNotExecutable = 126
	CodeNotFound      = 127
)

// StartError is the error of a command that was not run.
type StartError struct {
	Code int
	text string
}

func (e *StartError) Error() string { return e.text }

// failedStart is a StartError on its way to the first process.
type failedStart struct {
	Code int
	Text string
}

// Inside makes the copy of the system the root of this process, runs a command in it and returns
// its exit code. Descriptors 3 and 4 are those of [Session.Run].
func Inside(command []string) int {
	signals := host.CatchSignals()
	defer signals.Stop()
	spec, failure := os.NewFile(3, "spec"), os.NewFile(4, "failure")
	syscall.CloseOnExec(3)
	syscall.CloseOnExec(4)
	status, err := inside(spec, command, signals, func() { _ = failure.Close() })
	if err != nil {
		f := failedStart{CodeFailed, err.Error()}
		switch {
		case errors.Is(err, exec.ErrNotFound), errors.Is(err, os.ErrNotExist):
			f.Code = CodeNotFound
		case errors.Is(err, errNotRun):
			f.Code = CodeNotExecutable
		}
		_ = json.NewEncoder(failure).Encode(f) // the first process may be gone
		return f.Code
	}
	return ExitCode(status)
}

// errNotRun is the error of a command that cannot be executed.
var errNotRun = errors.New("cannot run")

func inside(specFile *os.File, command []string, signals *host.Signals, started func()) (syscall.WaitStatus, error) {
	var root host.NewRoot
	if err := json.NewDecoder(specFile).Decode(&root); err != nil {
		return 0, fmt.Errorf("the first process has ended: %w", err)
	}
	if err := specFile.Close(); err != nil {
		return 0, err
	}
	if err := root.Enter(); err != nil {
		return 0, err
	}
	path, err := exec.LookPath(command[0])
	if err != nil {
		return 0, fmt.Errorf("%w %q: %w", errNotRun, command[0], errors.Unwrap(err))
	}
	status, err := host.RunFirst(path, command, signals, started)
	if err != nil {
		return 0, fmt.Errorf("%w %q: %w", errNotRun, command[0], err)
	}
	return status, nil
}

// ExitCode is the exit code of a process that has ended; for a signal it is that of a shell.
func ExitCode(status syscall.WaitStatus) int {
	if status.Signaled() {
		return 128 + int(status.Signal())
	}
	return status.ExitStatus()
}
