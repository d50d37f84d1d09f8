// Command fuse-overlay mounts an overlay file system from user space. This package answers what the user typed: it
// holds the table of options, becomes a daemon, tells its caller how that went, and turns signals into an unmount.
// It takes no locks. It does not know what a layer holds: all of that is asked of package fs.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// Exit codes; scripts rely on them.
const (
	exitOK     = 0
	exitFailed = 1
)

// The names that change what the program does: callers of compatName expect the manners of that older program, see
// parseRequest and printVersion.
const (
	ownName    = "fuse-overlay"
	compatName = "fuse-overlayfs"
	// helperPrefix begins the names by which mount(8) calls programs that mount a type of file system.
	helperPrefix = "mount."
)

func main() {
	serveApart(os.Args)
	os.Exit(run(os.Args, os.Stdout, os.Stderr))
}

// run is the whole program, and also that of the process which startDaemon starts: that one gets the same arguments
// and is told apart by the result pipe in its hand.
func run(argv []string, stdout, stderr io.Writer) int {
	if runLossClient() {
		return exitOK
	}
	called := calledBy(argv)
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
		fmt.Fprintf(stderr, "unknown argument ignored: %s\n", printable(oneLine(shortened(ignored))))
	}
	switch {
	case req.fake:
		return exitOK
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

// calledBy is the name the program was called by: the mount is of type fuse.NAME, and its errors begin with it. Called
// as mount.NAME, by mount(8), it is NAME.
func calledBy(argv []string) string {
	if len(argv) == 0 || argv[0] == "" {
		return ownName
	}
	return strings.TrimPrefix(filepath.Base(argv[0]), helperPrefix)
}

// asMountHelper tells whether mount(8) calls.
func asMountHelper(argv []string) bool {
	return len(argv) > 0 && strings.HasPrefix(filepath.Base(argv[0]), helperPrefix)
}

// fail tells the user why, in one line whatever the error holds.
func fail(stderr io.Writer, called string, err error) int {
	fmt.Fprintf(stderr, "%s: %s\n", called, message(err))
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
	m.serve(signals)
	return nil
}

// orStay begins again in the caller's namespace if err is that this process cannot live in one of
// its own. Otherwise, and if that fails, it returns the error.
func orStay(req *request, err error, result *resultPipe) error {
	var apart *apartError
	if errors.As(err, &apart) {
		return req.stayWithCaller(apart, result)
	}
	return err
}

// runDaemon is the life of the process that startDaemon starts. It tells its errors to the parent, which tells them
// to the user; once the parent is gone there is nobody left to tell but the log.
func runDaemon(req *request, result *resultPipe) int {
	signals := catchSignals()
	setProcessName(req.called)
	m, err := attachDaemon(req)
	if err != nil {
		result.failure(orStay(req, err, result))
		return exitFailed
	}
	if err := result.success(); err != nil {
		// The parent was killed while it waited: its caller believes that nothing is mounted, so let it be so.
		m.detach()
		return exitFailed
	}
	m.serve(signals)
	return exitOK
}

// attachDaemon returns when all is done that may fail: a mount that answers, in a process that holds nothing of its
// caller's but the result pipe.
func attachDaemon(req *request) (*attached, error) {
	log, err := daemonLog(req)
	if err != nil {
		return nil, err
	}
	m, err := attach(req, log)
	if err != nil {
		return nil, err
	}
	if err := letGoOfCaller(); err != nil {
		m.detach()
		return nil, err
	}
	return m, nil
}
