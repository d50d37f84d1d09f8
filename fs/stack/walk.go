package stack

import (
	"path"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/owner"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// EachFixedObject calls f for every object that only a change behind the mount could change: of
// every layer but a writable upper and the data-only ones, whether the mount shows it or not. It
// does so until f or a call fails, and returns that error. It follows no symbolic link, and has one
// descriptor open at a time. An object with several names comes once for each name.
func (s *Stack) EachFixedObject(f func(owner.Ref) error) error {
	for i := range s.layers {
		if l := &s.layers[i]; l.root != nil && !(i == Upper && s.Writable()) {
			if err := l.eachObject(f); err != nil {
				return err
			}
		}
	}
	return nil
}

func (l *layer) eachObject(f func(owner.Ref) error) error {
	if err := f(l.shown.On(l.root.Ref())); err != nil {
		return err
	}
	for dirs := []string{""}; len(dirs) > 0; {
		last := len(dirs) - 1
		dir := dirs[last]
		below, err := l.eachEntry(dir, f)
		if err != nil {
			return err
		}
		dirs = dirs[:last]
		for _, name := range below {
			dirs = append(dirs, path.Join(dir, name))
		}
	}
	return nil
}

// eachEntry calls f for the entries of a directory, and returns the names of those that are
// directories.
func (l *layer) eachEntry(dir string, f func(owner.Ref) error) (below []string, err error) {
	d, err := l.root.OpenDir(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	err = d.List(func(e sys.Dirent) error {
		r := d.At(e.Name)
		kind := e.Type
		if kind == unix.DT_UNKNOWN {
			var st sys.Stat
			if err := r.Stat(&st); err != nil {
				return err
			}
			if st.Mode&unix.S_IFMT == unix.S_IFDIR {
				kind = unix.DT_DIR
			}
		}
		if kind == unix.DT_DIR {
			below = append(below, e.Name)
		}
		return f(l.shown.On(r))
	})
	return below, err
}
