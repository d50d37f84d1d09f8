package changes

import (
	"slices"

	"github.com/fuse-overlay/fuse-overlay/internal/ondisk"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
	"github.com/fuse-overlay/fuse-overlay/whiteout"
)

// upperDir is what the upper has in one directory.
type upperDir struct {
	whiteout.DirXattrs
	names []string // of objects, whiteouts, and what markers hide; sorted
	// marked are the names that have a marker. An object under such a name does not merge with the
	// layers below.
	marked map[string]bool
}

// readUpper reads a directory of the upper. Without one there is nothing in it.
func readUpper(names ondisk.Names, d *sys.Dir) (*upperDir, error) {
	if d == nil {
		return &upperDir{}, nil
	}
	xattrs, err := whiteout.ReadDirXattrs(names, d)
	if err != nil {
		return nil, err
	}
	u := &upperDir{DirXattrs: xattrs}
	err = d.List(func(e sys.Dirent) error {
		switch hidden, ok := whiteout.Hidden(e.Name); {
		case ok:
			if u.marked == nil {
				u.marked = map[string]bool{}
			}
			u.marked[hidden] = true
			u.names = append(u.names, hidden)
		case e.Name == whiteout.OpaqueMarker:
			u.Opaque = true
		case !whiteout.IsMarker(e.Name):
			u.names = append(u.names, e.Name)
		}
		return nil
	})
	u.add(nil)
	return u, err
}

// add adds names of the lowers.
func (u *upperDir) add(names []string) {
	u.names = append(u.names, names...)
	slices.Sort(u.names)
	u.names = slices.Compact(u.names)
}
