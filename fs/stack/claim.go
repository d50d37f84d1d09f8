package stack

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/host"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
	"github.com/fuse-overlay/fuse-overlay/whiteout"
)

// The upper and the work directory belong to one mount at a time: it holds a lock on each (flock), and beside the lock it
// publishes what it is (sys.Holder).

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

// lockWait is how long a directory may still be held by the daemon of a mount that has just been unmounted. umount does not
// wait for its end, and some clients mount again at once: containerd's shim, when it lost the exit code of its mount helper.
const lockWait = 3 * time.Second

// A holder whose mount is not in sight has askAfter to end by itself. Then the new mount signals it
// to hand the directory over, and again after askAgain.
const (
	askAfter = 50 * time.Millisecond
	askAgain = 500 * time.Millisecond
)

// lock takes a directory for this mount alone, which is made in the mount namespace at. It does not
// wait for a mount that the mount table there shows: that one is not about to end. It signals a
// mount that is not in sight to hand the directory over.
func lock(dir *sys.Dir, at *host.MountNamespace) error {
	start := time.Now()
	for askAt := askAfter; ; time.Sleep(5 * time.Millisecond) {
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
		if waited > askAt {
			_ = dir.SignalHolder(holder) // without a signal, lock waits for its end
			askAt += askAgain
		}
	}
}

// pointOf is where the mount table of the namespace at shows the holder's mount, which was made there; empty: nowhere.
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

// HandOver gives the upper and the work directory up for another mount. Precondition: nothing changes them any more.
func (s *Stack) HandOver() error {
	if !s.Writable() {
		return nil
	}
	s.dropShared()
	return errors.Join(s.layers[Upper].root.Unlock(), s.workRoot.Unlock())
}

// openForReading opens the upper as the topmost layer of a read-only mount: without a lock, and without a work directory.
func (s *Stack) openForReading(c Config) error {
	root, _, err := sys.OpenLower(c.Upper)
	if err != nil {
		return &Error{roleUpper, c.Upper, err}
	}
	s.layers[Upper].root = root
	if err := s.setDevice(Upper); err != nil {
		return &Error{roleUpper, c.Upper, err}
	}
	s.format = whiteout.Format{Xattrs: s.names.Reading(host.IsHostRoot())}
	return nil
}

// openBesideOther is openUpper for a second mount, where the user lets it be one that cannot write: nothing that two mounts
// wrote side by side would keep the promise that the data of either is whole.
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
