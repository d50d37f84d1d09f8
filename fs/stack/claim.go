package stack

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/sys"
	"github.com/fuse-overlay/fuse-overlay/whiteout"
)

// The upper and the work directory belong to one mount at a time: it holds a lock on each (flock), and beside the lock it
// publishes what it is (sys.Holder).

// errInUse is for a holder that publishes nothing.
var errInUse = errors.New("is in use by another mount (EBUSY)")

// inUseError names the mount of this program that holds a directory.
type inUseError struct {
	point string // in this mount namespace; empty: the mount is in another one
	pid   int    // in this pid namespace; 0: not known
}

func (e *inUseError) Error() string {
	where := "in another mount namespace"
	if e.point != "" {
		where = fmt.Sprintf("on %q", e.point)
	}
	if e.pid == 0 {
		return fmt.Sprintf("is in use by the mount %s (EBUSY)", where)
	}
	return fmt.Sprintf("is in use by the mount %s of process %d (EBUSY)", where, e.pid)
}

// lockWait is how long a directory may still be held by the daemon of a mount that has just been unmounted. umount does not
// wait for its end, and some clients mount again at once: containerd's shim, when it lost the exit code of its mount helper.
const lockWait = 3 * time.Second

// lock takes a directory for this mount alone. It does not wait for a mount that the mount table of this namespace shows: that
// one is not about to end.
func lock(dir *sys.Dir) error {
	for deadline := time.Now().Add(lockWait); ; time.Sleep(5 * time.Millisecond) {
		if err := dir.Lock(); err != unix.EWOULDBLOCK {
			return err
		}
		holder, known := dir.Holder()
		if !known && time.Now().After(deadline) {
			return errInUse
		}
		if !known {
			continue
		}
		if point := pointOf(holder); point != "" || time.Now().After(deadline) {
			return &inUseError{point, holder.KnownPID()}
		}
	}
}

// pointOf is where the mount table of this namespace shows the holder's mount; empty: nowhere.
func pointOf(h sys.Holder) string {
	if h.Dev == 0 || !h.Here() {
		return ""
	}
	table, err := sys.MountTable()
	if err != nil {
		return ""
	}
	i := slices.IndexFunc(table, func(m sys.MountEntry) bool { return m.Dev == h.Dev })
	if i < 0 {
		return ""
	}
	return table[i].Point
}

// takeUpper locks the upper and the work directory.
func takeUpper(c Config, upper, work *sys.Dir) error {
	for _, d := range []struct {
		dir        *sys.Dir
		role, path string
	}{{upper, roleUpper, c.Upper}, {work, roleWork, c.Work}} {
		if err := lock(d.dir); err != nil {
			return &Error{d.role, d.path, err}
		}
	}
	return nil
}

// Publish tells other mounts which mount holds the upper and the work directory. A file system that keeps no such locks is as
// good: then messages name no mount.
func (s *Stack) Publish(h sys.Holder) {
	if !s.Writable() {
		return
	}
	for _, d := range []*sys.Dir{s.layers[Upper].root, s.workRoot} {
		_ = d.Publish(h)
	}
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
	s.format = whiteout.ReadingFormat(s.names, sys.IsHostRoot())
	return nil
}

// openBesideOther is openUpper for a second mount, where the user lets it be one that cannot write: nothing that two mounts
// wrote side by side would keep the promise that the data of either is whole.
func (s *Stack) openBesideOther(c Config, inUse *Error) error {
	s.unmakeWork(c)
	s.madeWork = false
	for _, d := range []**sys.Dir{&s.layers[Upper].root, &s.workRoot} {
		(*d).Close()
		*d = nil
	}
	s.warnings = append(s.warnings, inUse.Error()+": this mount can only be read")
	return s.openForReading(c)
}
