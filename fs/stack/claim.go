package stack

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/host"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// The upper and the work directory belong to one mount at a time. The mount holds a lock on each
// (flock) and publishes its identity beside the lock (sys.Holder).

// errInUse is for a holder that publishes nothing.
var errInUse = errors.New("is in use by another mount (EBUSY)")

// inUseError names the mount of this program that holds a directory.
type inUseError struct {
	point string // empty: the mount table here does not show the mount
	pid   int    // in this pid namespace; 0: not known
}

func (e *inUseError) Error() string {
	mount, process := "a mount that the mount table here does not show", ""
	if e.point != "" {
		mount = fmt.Sprintf("the mount on %q", e.point)
	}
	if e.pid != 0 {
		process = fmt.Sprintf(", process %d", e.pid)
	}
	return fmt.Sprintf("is in use by %s%s (EBUSY)", mount, process)
}

// lockWait is how long lock waits for the daemon of a mount that has just been unmounted: umount
// does not wait for the daemon's end. containerd's shim mounts again at once if it has lost the
// exit code of its mount helper.
const lockWait = 3 * time.Second

// If the holder's mount is not in the mount table, lock waits signalAfter for the holder to end.
// Then it signals the holder to hand the directory over, and again after signalAgain.
const (
	signalAfter = 50 * time.Millisecond
	signalAgain = 500 * time.Millisecond
)

// lock takes a directory for this mount alone, which is made in the mount namespace at. It does not
// wait for a mount that the mount table there shows: that one is not about to end. It signals a
// mount that is not in sight to hand the directory over.
func lock(dir *sys.Dir, at *host.MountNamespace) error {
	start := time.Now()
	for signalAt := signalAfter; ; time.Sleep(5 * time.Millisecond) {
		if err := dir.Lock(); err != unix.EWOULDBLOCK {
			return err
		}
		holder, known := dir.Holder()
		waited := time.Since(start)
		switch {
		case !known && waited > lockWait:
			return errInUse
		case !known:
			continue
		}
		if point := pointOf(holder, at); point != "" || waited > lockWait {
			return &inUseError{point, holder.KnownPID()}
		}
		at.Forget(holder.Dev)
		if waited > signalAt {
			_ = dir.SignalHolder(holder) // without a signal, lock waits for its end
			signalAt += signalAgain
		}
	}
}

// pointOf is where the mount table of the namespace at shows the holder's mount, which was made
// there; empty: nowhere.
func pointOf(h sys.Holder, at *host.MountNamespace) string {
	if h.Dev == 0 || h.MountNamespace == 0 || h.MountNamespace != at.ID() {
		return ""
	}
	table, err := at.Mounts()
	if err != nil {
		return ""
	}
	m, _ := h.Find(table)
	return m.Point
}

// takeUpper locks the upper and the work directory.
func takeUpper(c Config, upper, work *sys.Dir) error {
	for _, d := range []struct {
		dir        *sys.Dir
		role, path string
	}{{upper, roleUpper, c.Upper}, {work, roleWork, c.Work}} {
		if err := lock(d.dir, c.Namespace); err != nil {
			return &Error{d.role, d.path, err}
		}
	}
	return nil
}

// Publish makes known to other mounts which mount holds the upper and the work directory. On a file
// system without such locks it does nothing, and the messages of other mounts name no holder.
func (s *Stack) Publish(h sys.Holder) {
	if !s.Writable() {
		return
	}
	for _, d := range []*sys.Dir{s.layers[Upper].root, s.workRoot} {
		_ = d.Publish(h)
	}
}

// PublishAgain is Publish for a process that has inherited the locks of another one, and with them
// what that has published.
func (s *Stack) PublishAgain(h sys.Holder) {
	if !s.Writable() {
		return
	}
	for _, d := range []*sys.Dir{s.layers[Upper].root, s.workRoot} {
		_ = d.Unpublish()
	}
	s.Publish(h)
}

// HandOver unlocks the upper and the work directory for another mount. Precondition: this mount
// makes no more changes.
func (s *Stack) HandOver() error {
	if !s.Writable() {
		return nil
	}
	s.whiteouts.Close()
	return errors.Join(s.layers[Upper].root.Unlock(), s.workRoot.Unlock())
}

// openForReading opens the upper as the topmost layer of a read-only mount, without a lock and
// without a work directory.
func (s *Stack) openForReading(c Config) error {
	if c.Inherited != nil {
		s.layers[Upper].root = sys.InheritDir(*c.Inherited.Upper)
	} else {
		if err := checkNoMerge(c.Work); err != nil {
			return &Error{roleWork, c.Work, err}
		}
		root, _, err := sys.OpenLower(c.Upper)
		if err != nil {
			return &Error{roleUpper, c.Upper, err}
		}
		s.layers[Upper].root = root
	}
	if err := s.setDevice(Upper); err != nil {
		return &Error{roleUpper, c.Upper, err}
	}
	s.xattrs = s.names.OfUser()
	if host.IsHostRoot() {
		s.xattrs = s.names.OfRoot()
	}
	return nil
}

// openBesideOther opens the upper read-only for a second mount, if the user has allowed that: two
// mounts that write to one upper would damage each other's data.
func (s *Stack) openBesideOther(c Config, inUse *Error) error {
	s.unmakeWork(c)
	s.createdWork = false
	for _, d := range []**sys.Dir{&s.layers[Upper].root, &s.workRoot} {
		(*d).Close()
		*d = nil
	}
	s.warnings = append(s.warnings, inUse.Error()+": this mount can only be read")
	return s.openForReading(c)
}
