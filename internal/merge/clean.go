package merge

import (
	"errors"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/copyup"
	"github.com/fuse-overlay/fuse-overlay/internal/ondisk"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// clean empties the upper and the index, removes the staging directory, and at last the list, so
// that mounts take the upper again. incompat holds the list.
func (m *Merge) clean(incompat *sys.Dir) error {
	dir, err := incompat.OpenDir(Incompat)
	if err != nil {
		return err
	}
	defer dir.Close()
	old, err := makeDir(dir, oldName)
	if err != nil {
		return err
	}
	defer old.Close()
	sweep := copyup.OpenWork(old).Sweep
	if err := sweep(); err != nil { // first, because its names are needed again
		return err
	}
	for _, d := range []*sys.Dir{m.upper, m.index} {
		if d == nil {
			continue
		}
		if err := empty(d, old); err != nil {
			return err
		}
		if err := sweep(); err != nil {
			return err
		}
	}
	if err := m.restoreUpper(); err != nil {
		return err
	}
	if !m.list.Renames {
		if err := m.removeLowerStaging(); err != nil {
			return err
		}
	}
	if err := errors.Join(m.upper.SyncFS(), m.lower.SyncFS()); err != nil {
		return err
	}
	if err := m.removeBuild(); err != nil {
		return err
	}
	for _, sub := range []string{oldName, whiteName} { // the kernel removes no directory that holds another
		if err := removeSub(dir, sub); err != nil {
			return err
		}
	}
	// A mount sweeps what is left of it.
	if err := m.staging.Rename(copyup.IncompatDir, m.staging, buildName, 0); err != nil {
		return err
	}
	if err := m.staging.Sync(); err != nil {
		return err
	}
	return m.removeBuild()
}

// empty moves all entries of a directory to another.
func empty(d, to *sys.Dir) error {
	var names []string
	if err := d.List(func(e sys.Dirent) error { names = append(names, e.Name); return nil }); err != nil {
		return err
	}
	for i, name := range names {
		if err := rename(d, name, to, strconv.Itoa(i)); err != nil {
			return err
		}
	}
	return nil
}

// restoreUpper makes the root of the upper what it was, without marks that would hide the lower.
func (m *Merge) restoreUpper() error {
	r := m.upper.Ref()
	onDisk, err := r.ListXattr()
	if err != nil {
		return err
	}
	for _, name := range onDisk {
		_, attr, ok := m.dresser.names.Parse(name)
		if !ok || attr != ondisk.Opaque && attr != ondisk.Impure && attr != ondisk.Redirect {
			continue
		}
		if err := r.RemoveXattr(name); err != nil && err != unix.ENODATA {
			return err
		}
	}
	var st sys.Stat
	if err := r.Stat(&st); err != nil {
		return err
	}
	if st.Mode&0o7777 != m.list.UpperMode {
		if err := r.Chmod(m.list.UpperMode); err != nil {
			return err
		}
	}
	return r.Utimes(m.list.UpperTimes.Atime, m.list.UpperTimes.Mtime)
}
