package stack

import (
	"errors"
	"fmt"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/copyup"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// checkIncompat returns an error if the last mount has left a reason not to use the work directory
// again (incompat/NAME). It changes nothing. With AfterVolatile, the reason "volatile" is
// accepted: then afterVolatile is true, and the sweep removes the reason.
func checkIncompat(staging *sys.Dir, c *Config) (afterVolatile bool, err error) {
	reason, err := copyup.Incompat(staging)
	switch {
	case err != nil || reason == "":
		return false, err
	case reason == "volatile" && c.AfterVolatile:
		return true, nil
	case reason == "volatile":
		reason := filepath.Join(c.Work, workName, "incompat")
		return false, fmt.Errorf("was used by a volatile mount, and a power cut since may have damaged the upperdir: "+
			"if there was none, or the upperdir is good enough, remove %q and mount again (EINVAL)", reason)
	case reason == copyup.Merge:
		return false, errHalfMerged
	}
	return false, fmt.Errorf("was used by a mount with the feature %q, which is not known here (EINVAL)", reason)
}

// errHalfMerged is for layers between two states.
var errHalfMerged = errors.New("holds a merge of the upperdir that is not complete: " +
	"the same fuse-overlay merge completes it (EINVAL)")

// checkNoMerge returns an error if a merge of the upper has begun, for a mount that only reads. A
// work directory that is missing, or that this process must not read, is no error.
func checkNoMerge(workdir string) error {
	if workdir == "" {
		return nil
	}
	work, err := sys.OpenForChanges(filepath.Join(workdir, workName))
	switch err {
	case nil:
	case unix.ENOENT, unix.ENOTDIR, unix.EACCES:
		return nil
	default:
		return err
	}
	defer work.Close()
	reason, err := copyup.Incompat(work)
	if err == nil && reason == copyup.Merge {
		err = errHalfMerged
	}
	return err
}

// AfterVolatile reports whether the mount before this one was volatile, so that a power cut may
// have damaged the upper.
func (s *Stack) AfterVolatile() bool { return s.afterVolatile }

// MarkVolatile makes incompat/volatile in the work directory. Call it before the first change.
// Precondition: the stack is writable.
func (s *Stack) MarkVolatile() error {
	if err := s.work.SetVolatile(); err != nil {
		return fmt.Errorf("workdir: cannot note that the mount is volatile: %w", err)
	}
	return nil
}

// UnmarkVolatile removes incompat/volatile after the mount has failed.
func (s *Stack) UnmarkVolatile() error { return s.work.ClearVolatile() }
