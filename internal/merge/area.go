package merge

import (
	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/copyup"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// area is the staging directory.
type area struct {
	dir      *sys.Dir // that holds the others
	new, old *sys.Dir
}

func (a *area) close() {
	for _, d := range []*sys.Dir{a.dir, a.new, a.old} {
		if d != nil {
			d.Close()
		}
	}
}

// openArea opens the staging directory, and makes what of it is missing.
func openArea(parent *sys.Dir, name string) (*area, error) {
	a := &area{}
	err := a.open(parent, name)
	if err != nil {
		a.close()
		return nil, err
	}
	return a, nil
}

func (a *area) open(parent *sys.Dir, name string) (err error) {
	if a.dir, err = makeDir(parent, name); err != nil {
		return err
	}
	if a.new, err = makeDir(a.dir, newName); err != nil {
		return err
	}
	a.old, err = makeDir(a.dir, oldName)
	return err
}

// removeArea removes a staging directory, if there is one. It moves nothing out of it, so a kill
// leaves nothing else.
func removeArea(parent *sys.Dir, name string) error {
	d, err := parent.OpenDir(name)
	if err == unix.ENOENT {
		return nil
	}
	if err != nil {
		return err
	}
	defer d.Close()
	for _, sub := range []string{newName, oldName, whiteName} {
		if err := removeSub(d, sub); err != nil {
			return err
		}
	}
	for _, file := range []string{listName, appliedName} {
		if err := d.Unlink(file); err != nil && err != unix.ENOENT {
			return err
		}
	}
	return parent.Rmdir(name)
}

// removeSub removes a directory with all that is in it.
func removeSub(d *sys.Dir, name string) error {
	sub, err := d.OpenDir(name)
	if err == unix.ENOENT {
		return nil
	}
	if err != nil {
		return err
	}
	defer sub.Close()
	if err := copyup.OpenWork(sub).Sweep(); err != nil {
		return err
	}
	return d.Rmdir(name)
}

// removeBuild removes what a merge before its commit, or at its end, has in the work directory.
func (m *Merge) removeBuild() error {
	build, err := m.staging.OpenDir(buildName)
	if err == unix.ENOENT {
		return nil
	}
	if err != nil {
		return err
	}
	defer build.Close()
	if err := removeArea(build, Incompat); err != nil {
		return err
	}
	return m.staging.Rmdir(buildName)
}

// makeDir opens a directory, and makes it if it is missing.
func makeDir(parent *sys.Dir, name string) (*sys.Dir, error) {
	if err := parent.Mkdir(name, 0o700); err != nil && err != unix.EEXIST {
		return nil, err
	}
	return parent.OpenDir(name)
}
