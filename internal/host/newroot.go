package host

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// MountFlags returns the options nosuid, nodev and noexec that the mount at a path has.
func MountFlags(path string) (options []string, err error) {
	var st unix.Statfs_t
	if err := retry(func() error { return unix.Statfs(path, &st) }); err != nil {
		return nil, err
	}
	for _, f := range []struct {
		flag int64
		name string
	}{{unix.ST_NOSUID, "nosuid"}, {unix.ST_NODEV, "nodev"}, {unix.ST_NOEXEC, "noexec"}} {
		if st.Flags&f.flag != 0 {
			options = append(options, f.name)
		}
	}
	return options, nil
}

// RootMount is a mount in a new root.
type RootMount struct {
	From, To string // To is a path in the new root
	// ReadOnly: nothing can be written to From by way of the new root.
	ReadOnly bool
}

// NewRoot describes the root directory of a process and its descendants.
type NewRoot struct {
	Root   string      // becomes the root
	Mounts []RootMount // in order
	Hidden string      // a directory in the root that shows nothing
	Dir    string      // the working directory, a path in the root
}

// Enter makes the new root that of this process. The mount namespace must be its own. The processes
// of its pid namespace are those that /proc shows, if the kernel allows that.
func (n *NewRoot) Enter() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("cannot make the mounts private: %w", err)
	}
	// The mounts that a user namespace has inherited are locked, and cannot become a root.
	if err := unix.Mount(n.Root, n.Root, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("cannot mount %q over itself: %w", n.Root, err)
	}
	for _, m := range n.Mounts {
		// ENOENT: unmounted meanwhile, with its directory. What the root has there is no other mount's.
		if err := m.attach(n.Root); err != nil && err != unix.ENOENT {
			return fmt.Errorf("cannot mount %q in the new root: %w", m.To, err)
		}
	}
	if err := unix.Mount("tmpfs", n.Root+n.Hidden, "tmpfs", unix.MS_RDONLY, "size=4k,mode=0700"); err != nil {
		return fmt.Errorf("cannot hide %q in the new root: %w", n.Hidden, err)
	}
	// EPERM: another mount covers a part of /proc, as in many containers. Then the old one stays.
	err := unix.Mount("proc", n.Root+"/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "")
	if err != nil && err != unix.EPERM {
		return fmt.Errorf("cannot mount /proc in the new root: %w", err)
	}
	if err := unix.Chdir(n.Root); err != nil {
		return err
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("cannot change the root: pivot_root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("cannot leave the old root: %w", err)
	}
	return unix.Chdir(n.Dir)
}

func (m *RootMount) attach(root string) error {
	to := root + m.To
	if err := unix.Mount(m.From, to, "", unix.MS_BIND|unix.MS_REC, ""); err != nil || !m.ReadOnly {
		return err
	}
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
	return unix.MountSetattr(unix.AT_FDCWD, to, unix.AT_RECURSIVE, &attr)
}

// InnerProcess is the first process of a pid namespace and a mount namespace. If this process is no
// root, they belong to a user namespace in which the user keeps its id.
type InnerProcess struct{ pid int }

// StartInner starts this program again in namespaces of its own, with the standard descriptors and
// files as those from 3 on. The kernel kills the process, and all in its pid namespace, when the
// thread that calls StartInner ends.
func StartInner(argv []string, files ...*os.File) (InnerProcess, error) {
	attr := &syscall.ProcAttr{Env: os.Environ(), Files: []uintptr{0, 1, 2}, Sys: &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID, Pdeathsig: unix.SIGKILL,
	}}
	for _, f := range files {
		attr.Files = append(attr.Files, f.Fd())
	}
	if !MayMount() {
		attr.Sys.Cloneflags |= unix.CLONE_NEWUSER
		attr.Sys.UidMappings = []syscall.SysProcIDMap{{ContainerID: os.Getuid(), HostID: os.Getuid(), Size: 1}}
		attr.Sys.GidMappings = []syscall.SysProcIDMap{{ContainerID: os.Getgid(), HostID: os.Getgid(), Size: 1}}
		attr.Sys.AmbientCaps = []uintptr{unix.CAP_SYS_ADMIN}
	}
	pid, err := syscall.ForkExec("/proc/self/exe", argv, attr)
	return InnerProcess{pid}, err
}

// Wait waits for the end of the process, and passes on signals meanwhile.
func (p InnerProcess) Wait(signals *Signals) (syscall.WaitStatus, error) {
	return waitAs(p.pid, p.pid, signals)
}

// Signals are the signals that this process has caught. They are kept for a child that is started
// later.
type Signals struct{ caught chan os.Signal }

// passedOn are the signals that are passed on. SIGINT and SIGQUIT are caught and dropped: a
// terminal sends them to all processes itself.
var passedOn = []os.Signal{unix.SIGTERM, unix.SIGHUP, unix.SIGUSR1, unix.SIGUSR2}

// CatchSignals begins to catch signals, until Stop. A process catches them before it starts the
// child that they are for: the child may have reported that it runs, and its user sends one.
func CatchSignals() *Signals {
	s := &Signals{make(chan os.Signal, 16)}
	signal.Notify(s.caught, append([]os.Signal{unix.SIGINT, unix.SIGQUIT}, passedOn...)...)
	return s
}

// Stop gives the signals their former effects.
func (s *Signals) Stop() {
	signal.Stop(s.caught)
	close(s.caught)
}

// waitAs waits for the end of a child, and passes signals on to it. any is what to wait for
// meanwhile: the child, or -1 for all children of the first process of a namespace.
func waitAs(child, any int, signals *Signals) (syscall.WaitStatus, error) {
	go func() { // until Stop
		for s := range signals.caught {
			if slices.Contains(passedOn, s) {
				_ = unix.Kill(child, s.(syscall.Signal)) // ESRCH: it has just ended
			}
		}
	}()
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(any, &status, 0, nil)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return 0, fmt.Errorf("cannot wait for process %d: %w", child, err)
		case pid == child:
			return status, nil
		}
	}
}

// RunFirst runs a program as the child of this process, which is the first one of a pid namespace
// and waits for all processes that have lost their parents. The program has no capabilities that
// this process got by [StartInner]. started is called when the program runs. Signals are passed on
// to it.
func RunFirst(path string, argv []string, signals *Signals, started func()) (syscall.WaitStatus, error) {
	runtime.LockOSThread() // the ambient set is the thread's
	defer runtime.UnlockOSThread()
	err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
	if err != nil {
		return 0, os.NewSyscallError("prctl", err)
	}
	pid, err := syscall.ForkExec(path, argv, &syscall.ProcAttr{Env: os.Environ(), Files: []uintptr{0, 1, 2}})
	if err != nil {
		return 0, err
	}
	started()
	return waitAs(pid, -1, signals)
}

// StartWatcher starts this program again as the leader of a session, so that no terminal signals
// it, with a pipe as descriptor 3. The pipe ends with this process.
func StartWatcher(argv []string) (alive *os.File, err error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer func() { _ = r.Close() }()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, errors.Join(err, w.Close())
	}
	defer func() { _ = null.Close() }()
	_, err = syscall.ForkExec("/proc/self/exe", argv, &syscall.ProcAttr{
		Dir: "/", Env: os.Environ(), Files: []uintptr{null.Fd(), null.Fd(), null.Fd(), r.Fd()},
		Sys: &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		return nil, errors.Join(err, w.Close())
	}
	return w, nil
}

// HasTerminal reports whether a descriptor is a terminal, and this process is in the group that may
// read it.
func HasTerminal(fd int) bool {
	group, err := unix.IoctlGetInt(fd, unix.TIOCGPGRP)
	return err == nil && group == unix.Getpgrp()
}

// TakeTerminal makes the process group of this process that of the terminal at a descriptor. A
// shell that was started here may have left it to a group that has ended.
// Precondition: [HasTerminal] before the shell was started.
func TakeTerminal(fd int) {
	signal.Ignore(unix.SIGTTOU)
	_ = unix.IoctlSetPointerInt(fd, unix.TIOCSPGRP, unix.Getpgrp()) // EIO: it has been hung up
	signal.Reset(unix.SIGTTOU)
}

// Below reports whether a path is a directory, or lies in it.
func Below(path, dir string) bool {
	return dir == "/" || path == dir || strings.HasPrefix(path, dir+"/")
}
