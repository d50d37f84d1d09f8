package stack

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
)

// checkOverlap returns an error if layers lie inside each other so that a change of the upper or of
// the work directory would change a lower. An upper inside a lower is allowed (the lower may be /):
// the user has requested that. overlap: an object of one layer can also show in another directory.
func checkOverlap(c Config) (overlap bool, err error) {
	var paths []string
	for _, l := range slices.Concat(c.Lowers, c.DataOnly) {
		paths = append(paths, realPath(l))
	}
	lowers := slices.Clone(paths[:len(c.Lowers)])
	switch {
	case c.Upper == "":
		return anyInside(lowers), nil
	case c.ReadOnly:
		return anyInside(append(lowers, realPath(c.Upper))), nil
	}
	upper, work := realPath(c.Upper), realPath(c.Work)
	switch {
	case work == upper:
		return false, &Error{roleWork, c.Work, errors.New("is the upperdir: give another directory beside it")}
	case inside(work, upper):
		return false, &Error{roleWork, c.Work, fmt.Errorf("lies inside the upperdir %q: give a directory beside it", c.Upper)}
	case inside(upper, work):
		return false, &Error{roleWork, c.Work, fmt.Errorf("holds the upperdir %q: give a directory beside it", c.Upper)}
	}
	for i, l := range slices.Concat(c.Lowers, c.DataOnly) {
		if inside(paths[i], upper) {
			return false, &Error{roleLower, l, fmt.Errorf("lies inside the upperdir %q", c.Upper)}
		}
		if inside(paths[i], work) {
			return false, &Error{roleLower, l, fmt.Errorf("lies inside the workdir %q", c.Work)}
		}
	}
	return anyInside(append(lowers, upper)), nil
}

// anyInside reports whether one of several directories is another one, or lies inside another one.
// It changes their order.
func anyInside(dirs []string) bool {
	for i, dir := range dirs {
		dirs[i] = strings.TrimSuffix(dir, "/") + "/"
	}
	slices.Sort(dirs) // a directory inside another one follows it
	for i := 1; i < len(dirs); i++ {
		if strings.HasPrefix(dirs[i], dirs[i-1]) {
			return true
		}
	}
	return false
}

// realPath resolves symbolic links as far as the path exists.
func realPath(path string) string {
	if abs, err := filepath.Abs(path); err == nil {
		path = abs
	}
	if real, err := filepath.EvalSymlinks(path); err == nil {
		return real
	}
	dir, name := filepath.Split(path)
	if dir == path {
		return path
	}
	return filepath.Join(realPath(filepath.Clean(dir)), name)
}

func inside(path, dir string) bool {
	return path == dir || strings.HasPrefix(path, strings.TrimSuffix(dir, "/")+"/")
}
