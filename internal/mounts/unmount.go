package mounts

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/control"
	"github.com/fuse-overlay/fuse-overlay/internal/host"
)

// Options are those of Unmount.
type Options struct {
	// Lazy takes mounts out of the tree even while they are in use, and does not wait.
	Lazy bool
	// Timeout is how long to wait for the daemons of all mounts together.
	Timeout time.Duration
}

// Unmount unmounts the mounts of this program at some paths, and waits until their daemons have
// released the uppers. It first unmounts all, and joins the errors of each.
func Unmount(paths []string, o Options) error {
	var errs []error
	var gone []*unmounted
	for _, path := range paths {
		u, err := unmountOne(path, o.Lazy)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		gone = append(gone, u)
	}
	deadline := time.Now().Add(o.Timeout)
	for _, u := range gone {
		if !o.Lazy {
			errs = append(errs, u.waitUntil(deadline, o.Timeout))
		}
		u.close()
	}
	return errors.Join(errs...)
}

// unmounted is a mount that has been unmounted.
type unmounted struct {
	entry host.MountEntry
	// others are the numbers of other mounts of the same file system.
	others []int
	daemon Daemon
	// process is the daemon, if its PID is known.
	process host.Process
}

func (u *unmounted) close() {
	if u.daemon.PID != 0 {
		u.process.Close()
	}
}

// unmountOne unmounts what is mounted at a path.
func unmountOne(path string, lazy bool) (*unmounted, error) {
	m, err := EntryAt(path)
	var foreign *foreignError
	if errors.As(err, &foreign) {
		err = fmt.Errorf("%w; use umount", err)
	}
	if err != nil {
		return nil, err
	}
	u := &unmounted{entry: m, others: othersOf(m)}
	direct := host.MayMount()
	if user := userOf(m); !direct && user != host.User() {
		return nil, fmt.Errorf("%q was mounted by user %d; unmount it as that user, or as root", path, user)
	}
	if !lazy {
		u.findDaemon() // sends no request, which would keep the mount in use while the daemon hangs
		if u.daemon.PID == 0 {
			_ = control.RemoveLeft(m) // without it, the next daemon with this number does
		}
	}
	if err := unmountBy(direct, lazy)(m.Point); err != nil {
		u.close()
		return nil, explain(path, err)
	}
	return u, nil
}

// EntryAt returns the line of the mount table of the mount of this program that a path leads to.
func EntryAt(path string) (m host.MountEntry, err error) {
	p, err := host.OpenPoint(path)
	if err != nil {
		return m, fmt.Errorf("cannot open %q: %w; fuse-overlay list shows the mounts", path, err)
	}
	defer p.Close()
	point, err := p.Path()
	if err != nil {
		return m, fmt.Errorf("cannot find the path of %q: %w; is /proc mounted?", path, err)
	}
	id, err := p.MountID()
	if err != nil {
		return m, fmt.Errorf("cannot find the mount of %q: %w; is /proc mounted?", path, err)
	}
	table, err := host.MountTable()
	if err != nil {
		return m, fmt.Errorf("cannot read the mount table: %w; is /proc mounted?", err)
	}
	i := slices.IndexFunc(table, func(m host.MountEntry) bool { return m.ID == id && m.Point == point })
	switch {
	case i < 0:
		return m, fmt.Errorf("nothing is mounted on %q; fuse-overlay list shows the mounts", path)
	case !isOwn(table[i]):
		return m, &foreignError{path, table[i].Type}
	}
	return table[i], nil
}

// foreignError is the error of a mount that another program has made.
type foreignError struct{ path, kind string }

func (e *foreignError) Error() string {
	return fmt.Sprintf("the mount on %q is of type %s and not of this program", e.path, e.kind)
}

// findDaemon finds the process of the mount and opens it.
func (u *unmounted) findDaemon() {
	d := newSources().daemonOf(u.entry)
	if d.PID == 0 {
		return
	}
	process, err := host.OpenProcess(d.PID)
	if err != nil {
		return
	}
	if newSources().daemonOf(u.entry).PID != d.PID { // else the number could be another process's by now
		process.Close()
		return
	}
	u.daemon, u.process = d, process
}

func unmountBy(direct, lazy bool) func(point string) error {
	switch {
	case direct && lazy:
		return host.Detach
	case direct:
		return host.Unmount
	case lazy:
		return host.DetachByHelper
	}
	return host.UnmountByHelper
}

// explain adds to an error of an unmount what to do next.
func explain(path string, err error) error {
	switch {
	case errors.Is(err, unix.EBUSY):
		return fmt.Errorf("%q is in use; end the processes that fuse-overlay list --users shows, or use --lazy", path)
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EINVAL): // EINVAL: locked by a user namespace
		return fmt.Errorf("cannot unmount %q: %w; unmount it in the namespace in which it was mounted, or as root there", path, err)
	}
	return fmt.Errorf("cannot unmount %q: %w", path, err)
}

const (
	// pollTime is the time between two looks at the locks.
	pollTime = 10 * time.Millisecond
	// exitTime is how long a daemon that has released the upper may take to end, which is not an
	// error.
	exitTime = time.Second
)

// waitUntil waits until the daemon has ended, or has released the upper and does not end. timeout
// is for the message.
func (u *unmounted) waitUntil(deadline time.Time, timeout time.Duration) error {
	if point := u.elsewhere(); point != "" {
		return fmt.Errorf("%q is unmounted, but the same file system is mounted on %q, so its daemon goes on; unmount that as well",
			u.entry.Point, point)
	}
	if u.daemon.PID == 0 {
		return u.waitForUnknown(deadline, timeout)
	}
	var released time.Time
	for {
		ended, err := u.process.WaitEnd(pollTime)
		switch now := time.Now(); {
		case err != nil:
			return fmt.Errorf("cannot wait for process %d of %q: %w", u.daemon.PID, u.entry.Point, err)
		case ended:
			return nil
		case len(u.daemon.inodes) > 0 && !u.holdsLocks():
			if released.IsZero() {
				released = now
			}
			if now.Sub(released) > exitTime || now.After(deadline) {
				return nil
			}
		case now.After(deadline):
			return fmt.Errorf("%q is unmounted, but after %v its daemon, process %d, still runs; "+
				"processes or other mount namespaces may use the mount (grep -l fuse-overlay /proc/*/mountinfo)",
				u.entry.Point, timeout, u.daemon.PID)
		}
	}
}

// waitForUnknown waits for a daemon that is not found: it has ended, or it is in another pid
// namespace. In the second case the locks of its upper are visible, but not its process. Any user
// could have such locks, and make this process wait until the deadline.
func (u *unmounted) waitForUnknown(deadline time.Time, timeout time.Duration) error {
	for len(newSources().published(u.entry)) > 0 {
		if time.Now().After(deadline) {
			return fmt.Errorf("%q is unmounted, but after %v its upper is still locked by a process that is not visible here; "+
				"look for it in other pid namespaces", u.entry.Point, timeout)
		}
		time.Sleep(pollTime)
	}
	return nil
}

// othersOf returns the numbers of other mounts of the file system of a mount.
func othersOf(m host.MountEntry) (ids []int) {
	table, err := host.MountTable()
	if err != nil {
		return nil
	}
	for _, other := range table {
		if other.Dev == m.Dev && other.ID != m.ID {
			ids = append(ids, other.ID)
		}
	}
	return ids
}

// elsewhere returns the point of another mount of the same file system that is left. Empty: there
// is none.
func (u *unmounted) elsewhere() string {
	table, err := host.MountTable()
	if err != nil {
		return ""
	}
	for _, m := range table {
		if m.Dev == u.entry.Dev && slices.Contains(u.others, m.ID) {
			return m.Point
		}
	}
	return ""
}

// holdsLocks reports whether the daemon holds the locks of its upper and work directory.
func (u *unmounted) holdsLocks() bool {
	locks, err := host.FileLocks()
	if err != nil {
		return true
	}
	return slices.ContainsFunc(locks, func(l host.FileLock) bool {
		return l.Kind == "FLOCK" && l.PID == u.daemon.PID && slices.Contains(u.daemon.inodes, l.Inode)
	})
}
