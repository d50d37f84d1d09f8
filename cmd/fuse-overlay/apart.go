package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/fuse-overlay/fuse-overlay/fs/conn"
	"github.com/fuse-overlay/fuse-overlay/internal/host"
)

// A process that serves a mount keeps the mount namespace alive that it lives in, and with it the mount itself: it would wait for an
// end that it holds up. So where it may mount by itself it lives in a mount namespace of its own. That one begins as a copy of its
// caller's, in which it opens the layers and the log. Then it leaves all mounts of it (host.LeaveMounts). The mount is made in the
// caller's namespace, which the caller passes on by descriptors until then. The process ends with the mount: when it is unmounted,
// or the last process of its namespaces has ended.

const (
	// callerVariable holds the numbers of three descriptors for the serving process: the caller's
	// mount namespace, root and working directory.
	callerVariable = "_FUSE_OVERLAY_CALLER_FDS"
	// stayVariable holds the reason why the serving process stays in its caller's mount namespace.
	stayVariable = "_FUSE_OVERLAY_STAY"
)

// callersNamespace opens the namespace of this process, to be passed on; nil where there will be no other one: for a plain user, and
// where that has been tried in vain.
func callersNamespace() *host.MountNamespace {
	if os.Getenv(stayVariable) != "" || !mayMount() {
		return nil
	}
	n, err := host.CurrentNamespace()
	if err == nil {
		err = n.Do(func() error { return nil }) // else there would be no way back to it
	}
	if err != nil {
		n.Close()
		os.Setenv(stayVariable, err.Error())
		return nil
	}
	return n
}

// inheritedNamespace is that of the caller; nil in a process that lives there itself.
func inheritedNamespace() *host.MountNamespace {
	text := os.Getenv(callerVariable)
	if text == "" {
		return nil
	}
	os.Unsetenv(callerVariable)
	var fds [3]int
	for i, field := range strings.SplitN(text, ",", len(fds)) {
		fd, err := strconv.Atoi(field)
		if err != nil {
			return nil
		}
		fds[i] = fd
	}
	return host.InheritNamespace(fds)
}

// serveApart runs a program that is to serve in the foreground anew, in a mount namespace of its own: so the process keeps its
// number. It returns where there is no such need, and where that cannot be.
func serveApart(argv []string) {
	if os.Getenv(callerVariable) != "" || os.Getenv(resultVariable) != "" {
		return
	}
	if req, err := parseRequest(calledBy(argv), argv); err != nil || !req.foreground || req.fake {
		return
	}
	n := callersNamespace()
	if n == nil {
		return
	}
	defer n.Close()
	var fds []int
	for _, fd := range n.Descriptors() {
		fds = append(fds, int(fd))
	}
	err := host.ExecApart(argv, append(os.Environ(), callerVariable+"="+joinNumbers(fds)), fds...)
	os.Setenv(stayVariable, err.Error())
}

// apartError is the reason why a process cannot live in a mount namespace of its own.
type apartError struct{ err error }

func (e *apartError) Error() string { return "no mount namespace of its own: " + e.err.Error() }

// leaveMounts takes this process out of all mounts, after all that it needs is open.
func (r *request) leaveMounts() error {
	if r.mount.Namespace == nil {
		return nil
	}
	_ = time.Now().String() // reads the table of the time zone, once
	if err := host.LeaveMounts(neededPaths()...); err != nil {
		return &apartError{err}
	}
	return nil
}

// stayWithCaller runs the program anew, in the caller's namespace, after an error of leaveMounts. It returns an error or not at all.
func (r *request) stayWithCaller(reason *apartError, result *resultPipe) error {
	environ := append(os.Environ(), stayVariable+"="+oneLine(reason.err.Error()))
	var inherit []int
	if result != nil {
		fd := int(result.w.Fd())
		inherit = append(inherit, fd)
		environ = append(environ, resultVariable+"="+strconv.Itoa(fd))
	}
	if fd, ok := conn.DeviceFD(r.mount.Point); ok {
		inherit = append(inherit, fd)
	}
	return fmt.Errorf("%w; %w", reason, r.mount.Namespace.Exec(os.Args, environ, inherit...))
}

// noteStay notes why this process lives in its caller's namespace, where it should not.
func (r *request) noteStay() {
	reason := os.Getenv(stayVariable)
	if reason == "" {
		return
	}
	os.Unsetenv(stayVariable)
	r.note("the daemon stays in the mount namespace of its caller and keeps it alive: %s", reason)
}

// refusesNamespace reports whether err of clone(2) means that the kernel refuses a new namespace.
func refusesNamespace(err error) bool {
	switch err {
	case syscall.EPERM, syscall.EINVAL, syscall.ENOSPC, syscall.EUSERS, syscall.ENOSYS:
		return true
	}
	return false
}
