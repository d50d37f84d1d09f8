package copyup

import (
	"strconv"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/ondisk"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// Work is the staging area: a directory on the mount of the upper that no other process uses. Many
// goroutines may call its methods. They need no lock because [Work.Name] returns each name once.
type Work struct {
	dir  *sys.Dir      // immutable; the caller closes it
	last atomic.Uint64 // the number in the last name

	// Immutable. If known is true, an object that the daemon makes here belongs to uid and gid, and
	// has exactly the mode of the call.
	trust    trust
	uid, gid uint32
	known    bool
}

// namePrefix begins every staging name, as in the kernel's work directory.
const namePrefix = "#"

// OpenWork makes dir the staging area, and decides how far its file system is trusted. If an
// earlier mount may have used dir, the caller calls [Work.Sweep] before it stages a copy.
func OpenWork(dir *sys.Dir) *Work {
	w := &Work{dir: dir}
	w.probe()
	return w
}

// Dir returns the staging directory.
func (w *Work) Dir() *sys.Dir { return w.dir }

// Name returns a new name, such as "#1a".
func (w *Work) Name() string { return namePrefix + strconv.FormatUint(w.last.Add(1), 16) }

// Sweep removes all objects that an earlier mount left. It also removes the default ACL that the
// directory may have inherited, because every copy would inherit it (ovl_workdir_create).
// Precondition: nothing is staged.
func (w *Work) Sweep() error {
	if err := dropDefaultACL(w.dir); err != nil {
		return err
	}
	left, err := list(w.dir)
	if err != nil {
		return err
	}
	// First, because Work.remove takes new names for directories: these must not exist.
	for _, e := range left {
		digits, ours := strings.CutPrefix(e.Name, namePrefix)
		if n, err := strconv.ParseUint(digits, 16, 63); ours && err == nil && n > w.last.Load() {
			w.last.Store(n)
		}
	}
	var first error
	for _, e := range left {
		if err := w.remove(e); err != nil && first == nil {
			first = err
		}
	}
	return first
}

func dropDefaultACL(d *sys.Dir) error {
	_, err := d.Ref().GetXattr(ondisk.DefaultACL)
	if err == unix.ENODATA || err == unix.EOPNOTSUPP {
		return nil
	}
	if err != nil {
		return err
	}
	return d.Ref().RemoveXattr(ondisk.DefaultACL)
}

// Remove removes the object with a name in the staging area, a directory with all objects in it. It
// returns nil if there is none.
func (w *Work) Remove(name string) error {
	var st sys.Stat
	switch err := w.dir.At(name).Stat(&st); err {
	case nil:
	case unix.ENOENT:
		return nil
	default:
		return err
	}
	e := sys.Dirent{Name: name, Type: unix.DT_REG}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		e.Type = unix.DT_DIR
	}
	return w.remove(e)
}

func (w *Work) remove(e sys.Dirent) error {
	if e.Type != unix.DT_DIR {
		return unlessMissing(w.dir.Unlink(e.Name))
	}
	// removeFlat moves a directory in a directory to the top, and the loop removes it later. So a
	// tree of any depth takes one descriptor, and no path.
	waiting := []string{e.Name}
	for len(waiting) > 0 {
		name := waiting[len(waiting)-1]
		waiting = waiting[:len(waiting)-1]
		inside, err := w.removeFlat(name)
		if err != nil {
			return err
		}
		waiting = append(waiting, inside...)
	}
	return nil
}

// removeFlat removes a directory and every file in it. It moves the directories in it to the top,
// under the names that it returns.
func (w *Work) removeFlat(name string) (moved []string, err error) {
	err = w.dir.Rmdir(name)
	if err != unix.ENOTEMPTY && err != unix.EEXIST {
		return nil, unlessMissing(err)
	}
	// The directory may be the copy of one without permissions for its owner.
	if err := w.dir.At(name).Chmod(0o700); err != nil {
		return nil, err
	}
	d, err := w.dir.OpenDir(name)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	entries, err := list(d)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if e.Type == unix.DT_DIR {
			out, err := w.moveOut(d, e.Name)
			if err != nil {
				return nil, err
			}
			moved = append(moved, out)
			continue
		}
		if err := unlessMissing(d.Unlink(e.Name)); err != nil {
			return nil, err
		}
	}
	return moved, unlessMissing(w.dir.Rmdir(name))
}

// moveOut moves the directory name of d to the top of the staging area.
func (w *Work) moveOut(d *sys.Dir, name string) (out string, err error) {
	out = w.Name()
	err = d.Rename(name, w.dir, out, 0)
	if err != unix.EACCES {
		return out, err
	}
	// The kernel moves only a writable directory to another parent.
	if err := d.At(name).Chmod(0o700); err != nil {
		return out, err
	}
	return out, d.Rename(name, w.dir, out, 0)
}

// list returns the entries of d. Their Type is never DT_UNKNOWN.
func list(d *sys.Dir) ([]sys.Dirent, error) {
	var entries []sys.Dirent
	err := d.List(func(e sys.Dirent) error {
		entries = append(entries, e)
		return nil
	})
	if err != nil {
		return nil, err
	}
	for i := range entries {
		if entries[i].Type != unix.DT_UNKNOWN {
			continue
		}
		var st sys.Stat
		if err := d.At(entries[i].Name).Stat(&st); err != nil {
			return nil, err
		}
		entries[i].Type = uint8(st.Mode >> 12) // IFTODT: DT_* are the type bits of the mode
	}
	return entries, nil
}

// unlessMissing returns err, or nil for ENOENT: what does not exist needs no removal.
func unlessMissing(err error) error {
	if err == unix.ENOENT {
		return nil
	}
	return err
}
