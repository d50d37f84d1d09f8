package copyup

import (
	"strconv"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// Work is the staging area: a directory on the mount of the upper that nobody else uses. Its methods may be called by
// many at once; they need no lock because no two are given the same name.
type Work struct {
	dir  *sys.Dir      // immutable, not owned
	last atomic.Uint64 // the number of the name given out last

	// Immutable: how far the file system is trusted; and, where known, what is made here belongs to and that its mode is
	// the one that was asked for.
	trust    trust
	uid, gid uint32
	known    bool
}

// namePrefix begins every staging name, as in the kernel's work directory.
const namePrefix = "#"

// OpenWork uses dir as the staging area, and finds out how far its file system is trusted. [Work.Sweep] comes first where
// an earlier run may have left something.
func OpenWork(dir *sys.Dir) *Work {
	w := &Work{dir: dir}
	w.learn()
	return w
}

// Dir is the staging directory itself.
func (w *Work) Dir() *sys.Dir { return w.dir }

// Name gives a fresh name, such as "#1a".
func (w *Work) Name() string { return namePrefix + strconv.FormatUint(w.last.Add(1), 16) }

// Sweep makes the staging area fit for use: it removes all that an earlier run left, and the default ACL that the
// directory may have inherited and would hand on to every copy (as in ovl_workdir_create). Nothing may be staged while
// it runs.
func (w *Work) Sweep() error {
	if err := dropDefaultACL(w.dir); err != nil {
		return err
	}
	left, err := list(w.dir)
	if err != nil {
		return err
	}
	for _, e := range left { // first: emptying a directory takes fresh names, which must not be among these
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
	const acl = "system.posix_acl_default"
	_, err := d.Ref().GetXattr(acl)
	if err == unix.ENODATA || err == unix.EOPNOTSUPP {
		return nil
	}
	if err != nil {
		return err
	}
	return d.Ref().RemoveXattr(acl)
}

// Remove removes the entry name of the staging area with everything in it. That it is not there is fine.
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
		return gone(w.dir.Unlink(e.Name))
	}
	// A directory inside is moved out to the top and waits for its turn, so that a tree of any depth takes one
	// descriptor and no path.
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

// removeFlat removes the directory name and every file in it. The directories in it are moved to the top, under the
// names returned.
func (w *Work) removeFlat(name string) (moved []string, err error) {
	err = w.dir.Rmdir(name)
	if err != unix.ENOTEMPTY && err != unix.EEXIST {
		return nil, gone(err)
	}
	// What is in it can be a copy of a directory that its owner closed to himself.
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
		if err := gone(d.Unlink(e.Name)); err != nil {
			return nil, err
		}
	}
	return moved, gone(w.dir.Rmdir(name))
}

// moveOut moves the directory name of d to the top of the staging area.
func (w *Work) moveOut(d *sys.Dir, name string) (out string, err error) {
	out = w.Name()
	err = d.Rename(name, w.dir, out, 0)
	if err != unix.EACCES {
		return out, err
	}
	// A directory that gets another parent must be writable itself.
	if err := d.At(name).Chmod(0o700); err != nil {
		return out, err
	}
	return out, d.Rename(name, w.dir, out, 0)
}

// list lists d, with a Type that is never DT_UNKNOWN.
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

// gone takes it as done that a name is not there.
func gone(err error) error {
	if err == unix.ENOENT {
		return nil
	}
	return err
}
