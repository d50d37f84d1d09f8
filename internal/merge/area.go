package merge

import (
	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/copyup"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// area is a staging directory after the commit.
type area struct {
	new *sys.Dir // of what gets a place in the lower
	old *sys.Dir // of what is removed
	dir *sys.Dir // that holds old
}

func (a *area) close() {
	for _, d := range []*sys.Dir{a.new, a.old, a.dir} {
		if d != nil {
			d.Close()
		}
	}
}

// openStaging opens the staging directory after the commit, and makes what of it is missing.
func (m *Merge) openStaging() (*area, error) {
	a := &area{}
	var err error
	if m.list.Renames {
		err = a.openWork(m.staging)
	} else {
		err = m.openLowerStaging(a)
	}
	if err == nil {
		a.old, err = makeDir(a.dir, oldName)
	}
	if err != nil {
		a.close()
		return nil, err
	}
	return a, nil
}

func (a *area) openWork(staging *sys.Dir) (err error) {
	if a.new, err = staging.OpenDir(copyup.IncompatDir); err == nil {
		a.dir, err = a.new.OpenDir(Incompat)
	}
	return err
}

// openLowerStaging opens the staging directory of the lower, and makes what of it is missing.
func (m *Merge) openLowerStaging(a *area) error {
	parent, err := m.lower.OpenDir(m.list.Staging)
	if err != nil {
		return err
	}
	defer parent.Close()
	if a.dir, err = makeDir(parent, lowerStaging); err == nil {
		a.new, err = makeDir(a.dir, newName)
	}
	return err
}

// removeSub removes a directory with all that is in it, if there is one. It moves nothing out of
// it, so a kill leaves nothing else.
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
func (m *Merge) removeBuild() error { return removeSub(m.staging, buildName) }

// makeDir opens a directory, and makes it if it is missing.
func makeDir(parent *sys.Dir, name string) (*sys.Dir, error) {
	if err := parent.Mkdir(name, 0o700); err != nil && err != unix.EEXIST {
		return nil, err
	}
	return parent.OpenDir(name)
}
