package stack

import (
	"fmt"
	"path/filepath"

	"github.com/fuse-overlay/fuse-overlay/copyup"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// checkIncompat refuses a work directory whose last user has left a reason not to be used again, and changes nothing. after: a
// volatile mount is none; then the sweep takes its note away, and afterVolatile is true.
func checkIncompat(staging *sys.Dir, work string, after bool) (afterVolatile bool, err error) {
	reason, err := copyup.Incompat(staging)
	switch {
	case err != nil || reason == "":
		return false, err
	case reason == "volatile" && after:
		return true, nil
	case reason == "volatile":
		return false, fmt.Errorf("was used by a volatile mount, and a power cut since may have damaged the upperdir: if there was none, "+
			"or the upperdir is good enough, remove %q and mount again (EINVAL)", filepath.Join(work, workName, "incompat"))
	}
	return false, fmt.Errorf("was used by a mount with the feature %q, which is not known here (EINVAL)", reason)
}

// AfterVolatile reports whether the mount before this one was volatile, so that a power cut may have damaged the upper.
func (s *Stack) AfterVolatile() bool { return s.afterVolatile }

// MarkVolatile notes in the work directory, before the first change, that changes will wait for no disk. Precondition: the
// stack is writable.
func (s *Stack) MarkVolatile() error {
	if err := s.work.MarkVolatile(); err != nil {
		return fmt.Errorf("workdir: cannot note that the mount is volatile: %w", err)
	}
	return nil
}

// UnmarkVolatile takes that back, where the mount has not come to be.
func (s *Stack) UnmarkVolatile() error { return s.work.UnmarkVolatile() }
