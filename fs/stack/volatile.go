package stack

import (
	"fmt"
	"path/filepath"

	"github.com/fuse-overlay/fuse-overlay/copyup"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// checkIncompat refuses a work directory whose last user has left a reason not to be used again, and changes nothing.
func checkIncompat(staging *sys.Dir, work string) error {
	reason, err := copyup.Incompat(staging)
	switch {
	case err != nil || reason == "":
		return err
	case reason == "volatile":
		return fmt.Errorf("was used by a volatile mount, and a power cut since may have damaged the upperdir: if there was none, "+
			"or the upperdir is good enough, remove %q and mount again (EINVAL)", filepath.Join(work, workName, "incompat"))
	}
	return fmt.Errorf("was used by a mount with the feature %q, which is not known here (EINVAL)", reason)
}

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
