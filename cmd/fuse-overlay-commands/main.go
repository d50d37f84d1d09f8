// Command fuse-overlay-commands has the commands of fuse-overlay that do not mount. It is called by
// fuse-overlay, whose first argument names the command. It is a program of its own because mounts
// would otherwise pay for the start of its libraries.
//
// One file has one command: its arguments, its help and its output. What a command does is in a
// package below internal, which does not know the command line.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/fuse-overlay/fuse-overlay/fs/conn/features"
	"github.com/fuse-overlay/fuse-overlay/internal/message"
)

// Exit codes of all commands, on which scripts rely.
const (
	exitOK     = 0
	exitFailed = 1 // the command has failed, or has found what it looks for
	exitUsage  = 2 // the arguments are wrong, and nothing was done
)

// ownName is the name by which users call the commands.
const ownName = "fuse-overlay"

func main() {
	if features.RunApart(os.Stdout) {
		return
	}
	os.Exit(run(os.Args, os.Stdout, os.Stderr))
}

// run is the whole program.
func run(argv []string, stdout, stderr io.Writer) int {
	out := &output{w: stdout}
	root := newRoot()
	root.SetArgs(argv[min(1, len(argv)):])
	root.SetOut(out)
	root.SetErr(stderr)
	command, err := root.ExecuteC()
	if err == nil && out.err != nil {
		err = &workError{fmt.Errorf("cannot write the output: %w", cause(out.err))}
	}
	return report(stderr, command, err)
}

// report prints an error in one line and returns the exit code.
func report(stderr io.Writer, command *cobra.Command, err error) int {
	code := exitUsage
	var work *workError
	if errors.As(err, &work) {
		code = exitFailed
	}
	var exit *exitError
	if errors.As(err, &exit) {
		if code, err = exit.code, exit.error; err == nil {
			return code
		}
	}
	switch {
	case err == nil:
		return exitOK
	case errors.Is(err, errFinding):
		return exitFailed
	case code == exitUsage:
		err = fmt.Errorf("%w; see %s --help", err, command.CommandPath())
	}
	for _, one := range flatten(err) {
		fmt.Fprintf(stderr, "%s: %s\n", command.CommandPath(), message.Printable(message.OneLine(one.Error())))
	}
	return code
}

// flatten returns the errors that errors.Join has joined: each gets a line of its own.
func flatten(err error) []error {
	var work *workError
	if errors.As(err, &work) {
		err = work.error
	}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		return joined.Unwrap()
	}
	return []error{err}
}

// errFinding is the error of a command that has printed what it has found, and has no message.
var errFinding = errors.New("found")

// workError is an error of the work of a command. All other errors are those of its arguments.
type workError struct{ error }

func (e *workError) Unwrap() error { return e.error }

// exitError ends the program with an exit code of its own, without a message if it has no error.
type exitError struct {
	code int
	error
}

// work makes the errors of a function that does the work of a command workErrors.
func work(f func(cmd *cobra.Command, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		if err := f(cmd, args); err != nil {
			return &workError{err}
		}
		return nil
	}
}

// cause returns an error without the names of call and file.
func cause(err error) error {
	var path *os.PathError
	if errors.As(err, &path) {
		return path.Err
	}
	return err
}
