package merge

import (
	"errors"
	"fmt"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/copyup"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
	"github.com/fuse-overlay/fuse-overlay/internal/view"
)

// made is an object that is made in the staging directory before the commit.
type made struct {
	Name string
	// Path is that of the object in the merged tree of which it is a copy. A directory is empty.
	Path string
	// staged or upper is the object of the staging directory or the upper of which it is a link;
	// empty: it is a copy.
	staged, upper string
}

type ids struct{ uid, gid uint32 }

// errNoOwner is for an object that would get another owner than it has in the merged tree.
var errNoOwner = errors.New("this process cannot give an object this owner: run the command as root")

// stage makes what the list needs, and commits the list. After an error nothing has changed.
func (m *Merge) stage() (err error) {
	if err := m.removeBuild(); err != nil {
		return err
	}
	if err := m.rememberUpper(); err != nil {
		return err
	}
	defer func() {
		if err != nil && !m.committed {
			err = errors.Join(err, m.removeBuild())
		}
	}()
	build, err := makeDir(m.staging, buildName)
	if err != nil {
		return err
	}
	defer build.Close()
	if m.list.Renames {
		err = m.makeAll(build)
	} else {
		err = m.makeInLower()
	}
	if err != nil {
		return err
	}
	if err := m.commit(build); err != nil {
		if !m.list.Renames && !m.committed {
			err = errors.Join(err, m.removeLowerStaging())
		}
		return err
	}
	return nil
}

func (m *Merge) rememberUpper() error {
	var st sys.Stat
	if err := m.upper.Ref().Stat(&st); err != nil {
		return err
	}
	m.list.UpperMode, m.list.UpperTimes = st.Mode&0o7777, times{st.Atim, st.Mtim}
	return nil
}

// makeInLower makes all objects in a staging directory of the lower.
func (m *Merge) makeInLower() error {
	if err := m.chooseStaging(); err != nil {
		return err
	}
	parent, err := m.lower.OpenDir(m.list.Staging)
	if err != nil {
		return err
	}
	defer parent.Close()
	var st sys.Stat
	if err := parent.Ref().Stat(&st); err != nil {
		return err
	}
	m.list.Times = times{st.Atim, st.Mtim}
	for _, d := range m.list.Dirs {
		if d.Path == path.Clean(m.list.Staging) {
			m.list.Times = d.Attributes.Times
		}
	}
	// A merge that was killed before its commit may have left some. The lower is locked.
	if err := removeSub(parent, lowerStaging); err != nil {
		return err
	}
	a := &area{}
	err = m.openLowerStaging(a)
	if err == nil {
		err = m.makeAll(a.new)
	}
	a.close()
	if err != nil {
		return errors.Join(err, m.removeLowerStaging())
	}
	return nil
}

// chooseStaging chooses the directory of the lower that gets the staging directory: the root, or
// if this process may not write there, the deepest one that holds all changes.
func (m *Merge) chooseStaging() error {
	if m.lower.MayChange() == nil {
		return nil
	}
	common := ""
	for i, s := range m.list.Steps {
		if dir := path.Dir(s.Path); i == 0 {
			common = dir
		} else {
			for common != "." && dir != common && !strings.HasPrefix(dir, common+"/") {
				common = path.Dir(common)
			}
		}
	}
	for ; common != "." && common != ""; common = path.Dir(common) {
		var st sys.Stat
		if has, err := m.statLower(common, &st); err != nil {
			return err
		} else if has && st.Mode&unix.S_IFMT == unix.S_IFDIR && !m.isGathered(common) {
			m.list.Staging = common
			return nil
		}
	}
	return nil
}

// isGathered reports whether what is at a path of the lower moves.
func (m *Merge) isGathered(at string) bool {
	for _, g := range m.list.Gathers {
		if g.From == at || strings.HasPrefix(at, g.From+"/") {
			return true
		}
	}
	return false
}

// removeLowerStaging removes the staging directory of the lower.
func (m *Merge) removeLowerStaging() error {
	parent, err := m.lower.OpenDir(m.list.Staging)
	if err != nil {
		return err
	}
	defer parent.Close()
	if err := removeSub(parent, lowerStaging); err != nil {
		return err
	}
	err = parent.Ref().Utimes(m.list.Times.Atime, m.list.Times.Mtime)
	if err == unix.EPERM { // it belongs to another user
		err = nil
	}
	return err
}

// makeAll makes all objects in a directory, and makes them durable.
func (m *Merge) makeAll(dir *sys.Dir) error {
	if err := copyup.OpenWork(dir).Sweep(); err != nil { // for a default ACL
		return err
	}
	for owner, p := range m.owners {
		if err := m.tryOwner(dir, owner); err != nil {
			return at(p, err)
		}
	}
	copier := &copyup.Copier{}
	for i := range m.makes {
		if err := m.make(dir, copier, &m.makes[i]); err != nil {
			return at(m.makes[i].Path, err)
		}
		m.advance()
	}
	if err := dir.SyncFS(); err != nil {
		return err
	}
	return m.upper.SyncFS()
}

// tryOwner returns an error if this process cannot give objects of the lower to an owner.
func (m *Merge) tryOwner(dir *sys.Dir, owner ids) error {
	const trial = "trial"
	f, err := dir.CreateFile(trial, 0o600)
	if err != nil {
		return err
	}
	err = m.dresser.scheme.On(f.Ref()).Chown(owner.uid, owner.gid)
	f.Close()
	if err == unix.EPERM || err == unix.EINVAL {
		err = fmt.Errorf("%d:%d: %w", owner.uid, owner.gid, errNoOwner)
	}
	return errors.Join(err, dir.Unlink(trial))
}

// make makes an object.
func (m *Merge) make(dir *sys.Dir, copier *copyup.Copier, o *made) error {
	switch {
	case o.staged != "":
		return dir.Link(dir.At(o.staged), o.Name)
	case o.upper != "":
		d, err := m.upper.OpenDir(path.Dir(o.upper))
		if err != nil {
			return err
		}
		defer d.Close()
		return dir.Link(d.At(path.Base(o.upper)), o.Name)
	}
	n, err := m.comparison.Merged().Lookup(strings.TrimPrefix(o.Path, "./"))
	if err != nil {
		return err
	}
	if n == nil {
		return unix.ESTALE // another process has changed the layers
	}
	defer n.Forget()
	return m.dresser.copy(dir, o.Name, n, copier)
}

// copy makes a copy of an object of a view under a new name. That of a directory is empty, and has
// not got its attributes.
func (d *dresser) copy(dir *sys.Dir, name string, n *view.Node, copier *copyup.Copier) error {
	a, err := attributesOf(n)
	if err != nil {
		return err
	}
	if err := d.create(dir, name, n, copier); err != nil || n.IsDir() {
		return err
	}
	if _, err := d.scheme.On(dir.At(name)).Record(&sys.Stat{Mode: a.Mode, Uid: a.UID, Gid: a.GID, Rdev: a.Rdev}); err != nil {
		return err
	}
	a.Flags &^= protection
	return d.dress(dir.At(name), &a)
}

func (d *dresser) create(dir *sys.Dir, name string, n *view.Node, copier *copyup.Copier) error {
	inode := d.scheme.Inode(n.Mode) & unix.S_IFMT
	switch inode {
	case unix.S_IFDIR:
		return dir.Mkdir(name, 0o700)
	case unix.S_IFLNK:
		target, err := n.Readlink()
		if err != nil {
			return err
		}
		return dir.Symlink(target, name)
	case unix.S_IFREG:
		f, err := dir.CreateFile(name, 0o600)
		if err != nil {
			return err
		}
		defer f.Close()
		if n.IsRegular() && n.Size > 0 {
			return n.WithData(func(from *sys.File) error { return copier.Fill(f, from, n.Size) })
		}
		return nil
	}
	return dir.Mknod(name, inode|0o600, n.Rdev)
}

// commit makes the list durable and part of the work directory, in one step.
func (m *Merge) commit(build *sys.Dir) error {
	text, err := m.list.encode()
	if err != nil {
		return err
	}
	f, err := build.CreateFile(listName, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Pwrite(text, 0)
	if err == nil {
		err = f.Sync()
	}
	f.Close()
	if err != nil {
		return err
	}
	reason, err := makeDir(build, Incompat)
	if err != nil {
		return err
	}
	defer reason.Close()
	for _, d := range []*sys.Dir{reason, build} {
		if err := d.Sync(); err != nil {
			return err
		}
	}
	if err := m.staging.RenameNew(buildName, m.staging, copyup.IncompatDir); err != nil {
		return err
	}
	m.committed = true
	return m.staging.Sync()
}
