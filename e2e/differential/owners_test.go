package differential

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// idShift is the difference between the ids on disk and those of a mount with shiftedIDs.
const idShift = 100000

// shiftedIDs is the option that reverts shiftOwners.
var shiftedIDs = fmt.Sprintf("uidmapping=%d:0:65536,gidmapping=%[1]d:0:65536", idShift)

// shiftOwners adds to the ids of dir and of all objects below it.
func shiftOwners(t *testing.T, dir string, by int) {
	t.Helper()
	harness.Check(t, filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		st := harness.Lstat(t, path)
		if st.Uid >= uint32(by) { // another name of an object that was met
			return nil
		}
		if err := os.Lchown(path, int(st.Uid)+by, int(st.Gid)+by); err != nil {
			return err
		}
		if st.Mode&unix.S_IFMT == unix.S_IFLNK {
			return nil
		}
		return unix.Chmod(path, st.Mode&0o7777) // chown clears suid and sgid
	}))
}

// keepsOwnersElsewhere reports whether the owners in an upper differ from those of its inodes, so
// that it cannot be compared on disk.
func keepsOwnersElsewhere(e *harness.Env) bool {
	for _, opt := range e.Opts {
		if strings.HasPrefix(opt, "xattr_permissions") || opt == shiftedIDs {
			return true
		}
	}
	return false
}
