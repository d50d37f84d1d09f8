package stack

import (
	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/ondisk"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// What follows is for commands that read or change the layers of an overlay that is not mounted.

// Names of the directories in the work directory.
const (
	StagingDir = workName
	IndexDir   = indexName
)

// KnownInWork reports whether overlay file systems make an entry of this name in a work directory.
// A mount refuses a work directory with any other.
func KnownInWork(name string) bool { return known[name] }

// TakeUpper opens upper and work directory for writing and locks them, as a mount does, so that no
// mount uses them until both are closed. It changes nothing in them. Without a work directory it
// opens and locks the upper alone, and work is nil. An error is one line that names the directory
// and the mount that uses it.
func TakeUpper(c Config) (upper, work *sys.Dir, err error) {
	alone := c.Work == ""
	if alone {
		c.Work = c.Upper
	}
	upper, work, err = sys.OpenUpper(c.Upper, c.Work, c.AccessTimes)
	switch {
	case err == unix.EXDEV:
		return nil, nil, &Error{roleWork, c.Work, errOtherFS}
	case err != nil:
		return nil, nil, openError(c, err)
	}
	if alone {
		work.Close()
		work = nil
		err = takeUpperAlone(c, upper)
	} else if err = checkKernel(c, upper, work); err == nil {
		err = takeUpper(c, upper, work)
	}
	if err != nil {
		upper.Close()
		if work != nil {
			work.Close()
		}
		return nil, nil, err
	}
	return upper, work, nil
}

func takeUpperAlone(c Config, upper *sys.Dir) error {
	if err := checkKernel(c, upper, upper); err != nil {
		return err
	}
	if err := lock(upper, c.Namespace); err != nil {
		return &Error{roleUpper, c.Upper, err}
	}
	return nil
}

// HandleState is what a file handle in an xattr leads to.
type HandleState uint8

// The states of a handle.
const (
	// HandleUnknown: this process must not open by handles, or the file systems of the lowers
	// cannot be distinguished.
	HandleUnknown HandleState = iota
	// HandleFound: the object exists.
	HandleFound
	// HandleStale: the file system has no such object any more.
	HandleStale
	// HandleForeign: no lower lies on the file system of the handle.
	HandleForeign
)

// StatByHandle looks for the object of a lower that a copy has the handle of, and fills st with its
// attributes if it exists.
func (s *Stack) StatByHandle(h ondisk.Handle, st *sys.Stat) (HandleState, error) {
	src := s.sourceOf(&h)
	if src == nil {
		for _, other := range s.sources {
			if !other.known {
				return HandleUnknown, nil
			}
		}
		return HandleForeign, nil
	}
	switch err := src.root.StatHandle(h.Handle, st); {
	case err == nil:
		return HandleFound, nil
	case mayNotOpen(err):
		return HandleUnknown, nil
	case isStale(err):
		return HandleStale, nil
	default:
		return HandleUnknown, err
	}
}

// HoldsRoot compares the handle in an xattr of the directory r with that of a layer's root: of the
// upper in the index, of the first lower in the root of the upper. ESTALE: it is another
// directory's. nil: it is that root's, or there is none to compare.
func (s *Stack) HoldsRoot(ns ondisk.Namespace, r sys.Ref, layer int) error {
	h, why, err := s.rootHandle(layer)
	if err != nil || why != "" {
		return err
	}
	h.Upper = layer == Upper
	switch err := s.belongs(ns, r, h); err {
	case unix.ENODATA, unix.EOPNOTSUPP, unix.EPERM: // there is no such xattr
		return nil
	default:
		return err
	}
}

// KeepsTypes reports whether each object of the layers has the type of its inode.
func (s *Stack) KeepsTypes() bool { return !s.overridesTypes }
