package changes

import (
	"path"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/ondisk"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
	"github.com/fuse-overlay/fuse-overlay/internal/view"
)

// With index=on a file that has several names in a lower stays one file when it is changed. A name
// that only the lower has leads to the copy in the index, so the file has changed there too, and
// the upper does not have the name. Only if the index has a copy with such names, the walk looks
// for them: it reads all directories of the merged tree.

// indexName is the directory of copies in the work directory.
const indexName = "index"

// findLinked finds the names that only lowers have of files with several names, by directory. up is
// the root of the upper.
func (w *walk) findLinked(work string, up *sys.Dir) error {
	if some, err := hasLowerNames(w.names, work); !some || err != nil {
		return err
	}
	root, err := w.merged.Root()
	if err != nil {
		return err
	}
	w.linked = map[string][]string{}
	was, err := w.lowers.Root()
	if err == nil {
		_, err = w.findLinkedIn(".", root, was, up)
	}
	return err
}

// hasLowerNames reports whether a copy in the index has names that only lowers have.
func hasLowerNames(names ondisk.Names, work string) (bool, error) {
	index, _, err := sys.OpenLower(filepath.Join(work, indexName))
	if err == unix.ENOENT {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer index.Close()
	some := false
	err = index.List(func(e sys.Dirent) error {
		if _, ok := ondisk.ParseIndexName(e.Name); !ok || some || e.Type == unix.DT_CHR || e.Type == unix.DT_DIR {
			return nil
		}
		for _, ns := range ondisk.Written {
			if !names.Has(ns) {
				continue
			}
			l, ok, err := ns.LinkCount(index.At(e.Name))
			if err != nil && err != unix.EOPNOTSUPP {
				return err
			}
			// The copy has one link in the index and else those of the upper.
			some = some || ok && (l.OfLower || l.Diff+1 > 0)
		}
		return nil
	})
	return some, err
}

// findLinkedIn finds names in the directory now and below it, and reports whether there are any.
// was is what the lowers have under its path; nil: no directory. up is the directory in the upper;
// nil: the upper does not have it.
func (w *walk) findLinkedIn(dir string, now, was *view.Node, up *sys.Dir) (found bool, err error) {
	names, err := now.Names()
	if err != nil {
		return false, at(dir, err)
	}
	for _, name := range names {
		p := path.Join(dir, name)
		if w.filter.place(p) == outside {
			continue
		}
		is, err := w.isLinked(p, now, was, up)
		if err != nil {
			return false, at(p, err)
		}
		if is {
			w.linked[dir] = append(w.linked[dir], name)
			found = true
		}
	}
	return found, nil
}

// isLinked reports whether the upper lacks the name at p and its object is a copy in the index, or
// whether it is the name of a directory with such names. The other arguments are those of
// findLinkedIn, for the directory of the name.
func (w *walk) isLinked(p string, dir, wasDir *view.Node, up *sys.Dir) (bool, error) {
	name := path.Base(p)
	now, err := dir.Lookup(name)
	if now == nil || err != nil {
		return false, err
	}
	defer now.Forget()
	var was *view.Node
	if wasDir.IsDir() {
		if was, err = wasDir.Lookup(name); err != nil {
			return false, err
		}
		defer was.Forget()
	}
	if !now.IsDir() {
		// Without a lower of this path the directory was renamed: leaf compares the names in it. A copy
		// has another time of change than its lower.
		in, err := has(up, name)
		return !in && (was == nil || was.Ctime != now.Ctime), err
	}
	below, err := openIn(up, name)
	if err != nil {
		return false, err
	}
	if below != nil {
		defer below.Close()
	}
	return w.findLinkedIn(p, now, was, below)
}

// has reports whether a directory of the upper has a name. up is nil if the upper does not have the
// directory.
func has(up *sys.Dir, name string) (bool, error) {
	if up == nil {
		return false, nil
	}
	var st sys.Stat
	err := up.At(name).Stat(&st)
	if err == unix.ENOENT {
		return false, nil
	}
	return err == nil, err
}

// openIn opens a directory in one of the upper; nil: the upper does not have it.
func openIn(up *sys.Dir, name string) (*sys.Dir, error) {
	if up == nil {
		return nil, nil
	}
	d, err := up.OpenDir(name)
	if err == unix.ENOENT {
		return nil, nil
	}
	return d, err
}

// addLinked adds to the names that the walk goes through those that findLinked has found, and notes
// which of them the upper does not have.
func (w *walk) addLinked(d *openDir) {
	for _, name := range w.linked[d.path] {
		if _, has := slices.BinarySearch(d.raw.names, name); has {
			continue
		}
		if d.lowerOnly == nil {
			d.lowerOnly = map[string]bool{}
		}
		d.lowerOnly[name] = true
	}
	d.raw.add(w.linked[d.path])
}
