// Command fuse-overlay mounts an overlay file system from user space. This package interprets the
// command line: it has the table of options, becomes a daemon, reports the result to its caller,
// and unmounts after a signal. It does not know what a layer holds. Package fs does.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/fuse-overlay/fuse-overlay/internal/commands"
	"github.com/fuse-overlay/fuse-overlay/internal/host"
	"github.com/fuse-overlay/fuse-overlay/internal/message"
	"github.com/fuse-overlay/fuse-overlay/internal/mountargs"
)

// Exit codes, on which scripts rely.
const (
	exitOK     = 0
	exitFailed = 1
)

func main() {
	if name := mountargs.Command(os.Args); commands.InSecondProgram(name) {
		os.Exit(fail(os.Stderr, mountargs.OwnName+" "+name, runSecond(os.Args)))
	}
	if runKeeper() {
		os.Exit(exitOK)
	}
	if memory, ready, err := host.Inherited(); memory != nil || err != nil {
		if err == nil {
			err = resume(memory, ready)
		}
		os.Exit(ended(err))
	}
	serveApart(os.Args)
	os.Exit(run(os.Args, os.Stdout, os.Stderr))
}

// run is the whole program, also in the process that startDaemon starts. That process has the same
// arguments and, in its environment, the result pipe.
func run(argv []string, stdout, stderr io.Writer) int {
	if runLossClient() {
		return exitOK
	}
	called := mountargs.CalledBy(argv)
	result, caller := inheritedResult(), inheritedNamespace()
	req, err := parseRequest(called, argv)
	if err == nil {
		err = req.complete(os.Geteuid())
	}
	if err != nil {
		return fail(stderr, called, err)
	}
	req.mount.Namespace, req.overlay.Namespace = caller, caller
	if result != nil || req.foreground {
		req.noteStay()
	}
	if result != nil {
		return runDaemon(req, result)
	}

	switch {
	case req.help:
		printUsage(stdout, called)
		return exitOK
	case req.version:
		printVersion(stdout, called)
		return exitOK
	}
	for _, ignored := range req.ignored {
		fmt.Fprintf(stderr, "unknown argument ignored: %s\n", message.Printable(message.OneLine(shortened(ignored))))
	}
	switch {
	case req.fake:
		return exitOK
	case req.remount:
		err = req.changeFlags()
	case req.foreground:
		err = runForeground(req)
	default:
		err = startDaemon(argv, req)
	}
	if err != nil {
		return fail(stderr, called, err)
	}
	return exitOK
}

// ended returns the exit code of a process that has taken over a mount.
func ended(err error) int {
	if err != nil {
		return fail(os.Stderr, mountargs.OwnName, err)
	}
	return exitOK
}

// fail prints an error in one line, whatever characters it has.
func fail(stderr io.Writer, called string, err error) int {
	fmt.Fprintf(stderr, "%s: %s\n", called, userMessage(err))
	return exitFailed
}

func runForeground(req *request) error {
	signals := catchSignals()
	log, err := foregroundLog(req)
	if err != nil {
		return err
	}
	m, err := attach(req, log)
	if err != nil {
		return orStay(req, err, nil)
	}
	m.serveControlled(signals)
	return nil
}

// orStay executes the program again in the caller's namespace if err is an apartError. Otherwise,
// and if that fails, it returns the error.
func orStay(req *request, err error, result *resultPipe) error {
	var apart *apartError
	if errors.As(err, &apart) {
		return req.stayWithCaller(apart, result)
	}
	return err
}

// runDaemon is the process that startDaemon starts. It sends an error to its parent, which prints
// it. After the parent's end, errors go to the log alone.
func runDaemon(req *request, result *resultPipe) int {
	signals := catchSignals()
	setProcessName(req.called)
	m, err := attachDaemon(req)
	if err != nil {
		result.failure(orStay(req, err, result))
		return exitFailed
	}
	if err := result.success(); err != nil {
		// The parent was killed while it waited. Its caller knows of no mount, so there must be
		// none.
		m.detach()
		return exitFailed
	}
	m.serveControlled(signals)
	return exitOK
}

// attachDaemon does everything that may fail: when it returns, the mount answers, and the process
// has nothing of its caller's but the result pipe.
func attachDaemon(req *request) (*attached, error) {
	log, err := daemonLog(req)
	if err != nil {
		return nil, err
	}
	m, err := attach(req, log)
	if err != nil {
		return nil, err
	}
	if err := releaseCaller(); err != nil {
		m.detach()
		return nil, err
	}
	return m, nil
}
