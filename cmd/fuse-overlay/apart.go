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
	"github.com/fuse-overlay/fuse-overlay/internal/message"
	"github.com/fuse-overlay/fuse-overlay/internal/mountargs"
)

// A process keeps its mount namespace alive, and with it all mounts in it. A daemon in its caller's
// namespace would wait for the end of a mount that it keeps alive itself. So a daemon that may call
// mount(2) has a mount namespace of its own. That begins as a copy of its caller's, in which the
// daemon opens the layers and the log. Then the daemon leaves all mounts in it (host.LeaveMounts).
// It makes the mount in the caller's namespace, of which it has descriptors until the mount
// answers. The daemon ends with the mount, after an unmount or the end of the last process in the
// mount's namespaces.

const (
	// callerVariable holds the numbers of three descriptors for the serving process: the caller's
	// mount namespace, root and working directory.
	callerVariable = "_FUSE_OVERLAY_CALLER_FDS"
	// stayVariable holds the reason why the serving process stays in its caller's mount namespace.
	stayVariable = "_FUSE_OVERLAY_STAY"
)

// callersNamespace opens the namespace of this process for a daemon in another one. nil: the daemon
// will stay in this one, because the user may not mount, or because that has failed before.
func callersNamespace() *host.MountNamespace {
	if os.Getenv(stayVariable) != "" || !host.MayMount() {
		return nil
	}
	n, err := host.CurrentNamespace()
	if err == nil {
		err = n.Do(func() error { return nil }) // or the daemon could not enter it
	}
	if err != nil {
		n.Close()
		os.Setenv(stayVariable, err.Error())
		return nil
	}
	return n
}

// inheritedNamespace returns the caller's namespace. nil: this process is in it.
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

// serveApart executes a program that serves in the foreground again, in a mount namespace of its
// own. The process keeps its number. serveApart returns if that is not needed, and if it fails.
func serveApart(argv []string) {
	if os.Getenv(callerVariable) != "" || os.Getenv(resultVariable) != "" {
		return
	}
	if req, err := parseRequest(mountargs.CalledBy(argv), argv); err != nil || !req.foreground || req.fake {
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

// apartError is the reason why a process cannot have a mount namespace of its own.
type apartError struct{ err error }

func (e *apartError) Error() string { return "no mount namespace of its own: " + e.err.Error() }

// leaveMounts removes the mounts of this process's namespace. Everything that the process needs is
// open.
func (r *request) leaveMounts() error {
	if r.mount.Namespace == nil {
		return nil
	}
	_ = time.Now().String() // makes package time read the time zone's file, once
	if err := host.LeaveMounts(neededPaths()...); err != nil {
		return &apartError{err}
	}
	return nil
}

// stayWithCaller executes the program again in the caller's namespace, after an error of
// leaveMounts. It returns only with an error.
func (r *request) stayWithCaller(reason *apartError, result *resultPipe) error {
	environ := append(os.Environ(), stayVariable+"="+message.OneLine(reason.err.Error()))
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

// noteStay notes why this process has to stay in its caller's namespace.
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
