package merge

import (
	"fmt"
	"path"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/copyup"
	"github.com/fuse-overlay/fuse-overlay/fs/stack"
	"github.com/fuse-overlay/fuse-overlay/internal/ondisk"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
	"github.com/fuse-overlay/fuse-overlay/whiteout"
)

// IncompleteError is the error of a merge that has begun to change the layers.
type IncompleteError struct{ Err error }

func (e *IncompleteError) Error() string {
	return e.Err.Error() + "; the merge has begun and no mount takes the upper: the same command completes it"
}

// Unwrap returns the reason.
func (e *IncompleteError) Unwrap() error { return e.Err }

// Run merges. An [IncompleteError] has left the layers between the two states. After any other
// error they are what they were. Precondition: Open, and Plan unless Begun.
func (m *Merge) Run() error {
	if !m.Begun() {
		if err := m.stage(); err != nil && !m.committed {
			return err
		} else if err != nil {
			return &IncompleteError{err}
		}
	}
	if err := m.complete(); err != nil {
		return &IncompleteError{err}
	}
	return nil
}

// Objects returns how often Run calls Done. Precondition: that of Run.
func (m *Merge) Objects() int { return len(m.makes) + len(m.list.Steps) }

func (m *Merge) advance() {
	if m.Done != nil {
		m.Done()
	}
}

// complete does all after the commit.
func (m *Merge) complete() error {
	dir, err := m.staging.OpenDir(copyup.IncompatDir)
	if err != nil {
		return err
	}
	defer dir.Close()
	var st sys.Stat
	err = dir.At(appliedName).Stat(&st)
	if err == unix.ENOENT {
		if err = m.apply(); err == nil {
			err = m.markApplied(dir)
		}
	}
	if err != nil {
		return err
	}
	return m.clean(dir)
}

// markApplied makes all changes durable, and notes that they are made: from now on the upper is not
// needed any more.
func (m *Merge) markApplied(dir *sys.Dir) error {
	if err := m.lower.SyncFS(); err != nil {
		return err
	}
	f, err := dir.CreateFile(appliedName, 0o600)
	if err != nil {
		return err
	}
	err = f.Sync()
	f.Close()
	if err != nil {
		return err
	}
	return dir.Sync()
}

// applier makes the changes in the lower.
type applier struct {
	*Merge
	*area
	whiteouts *whiteout.Maker // nil: there are no further lowers
}

func (m *Merge) apply() error {
	a, err := m.openStaging()
	if err != nil {
		return err
	}
	defer a.close()
	ap := applier{Merge: m, area: a}
	if ap.needsMarks() {
		work, err := makeDir(a.dir, whiteName)
		if err != nil {
			return err
		}
		defer work.Close()
		if ap.whiteouts, err = newMaker(work, m.dresser.names); err != nil {
			return err
		}
		defer ap.whiteouts.Close()
	}
	for i := range m.list.Gathers {
		if err := ap.gather(&m.list.Gathers[i]); err != nil {
			return at(m.list.Gathers[i].From, err)
		}
	}
	for i := range m.list.Steps {
		if err := ap.step(i, &m.list.Steps[i]); err != nil {
			return at(m.list.Steps[i].Path, err)
		}
		m.advance()
	}
	for _, l := range m.list.Late {
		if err := m.inLower(l.Path, func(r sys.Ref) error { return setFlags(r, flags, l.Flags) }); err != nil {
			return at(l.Path, err)
		}
	}
	for i := range m.list.Dirs {
		d := &m.list.Dirs[i]
		if err := m.inLower(d.Path, func(r sys.Ref) error { return m.dresser.dress(r, &d.Attributes) }); err != nil {
			return at(d.Path, err)
		}
	}
	return nil
}

// newMaker prepares a directory for the making of whiteouts.
func newMaker(dir *sys.Dir, names ondisk.Names) (*whiteout.Maker, error) {
	work := copyup.OpenWork(dir)
	if err := work.Sweep(); err != nil {
		return nil, err
	}
	return whiteout.NewMaker(work, stack.NameMax, whiteout.Wanted{Names: names})
}

// needsMarks reports whether the lower gets whiteouts or marks.
func (a *applier) needsMarks() bool {
	for i := range a.list.Steps {
		if s := &a.list.Steps[i]; s.Whiteout || s.Marks != (marks{}) {
			return true
		}
	}
	return false
}

// inLower calls f with the object of the lower at a path.
func (m *Merge) inLower(at string, f func(sys.Ref) error) error {
	if at == "." {
		return f(m.lower.Ref())
	}
	d, err := m.lower.OpenDir(path.Dir(at))
	if err != nil {
		return err
	}
	defer d.Close()
	return f(d.At(path.Base(at)))
}

// has reports whether a name leads to an object.
func has(d *sys.Dir, name string, want object) (bool, error) {
	var st sys.Stat
	err := d.At(name).Stat(&st)
	if err == unix.ENOENT {
		return false, nil
	}
	return err == nil && objectOf(&st) == want, err
}

// gather moves an object of the lower to the staging directory. If it is not there any more, that
// is done.
func (a *applier) gather(g *gather) error {
	d, err := a.lower.OpenDir(path.Dir(g.From))
	switch err {
	case nil:
	case unix.ENOENT, unix.ENOTDIR, unix.ELOOP:
		return nil
	default:
		return err
	}
	defer d.Close()
	there, err := has(d, path.Base(g.From), g.Is)
	if !there || err != nil {
		return err
	}
	return rename(d, path.Base(g.From), a.new, g.To)
}

// step changes one name.
func (a *applier) step(i int, s *step) error {
	dir, err := a.lower.OpenDir(path.Dir(s.Path))
	if err != nil {
		return err
	}
	defer dir.Close()
	name := path.Base(s.Path)
	switch {
	case s.From.Staged != "":
		return a.put(i, s, a.new, s.From.Staged, dir, name)
	case s.From.Upper != "":
		from, err := a.upper.OpenDir(path.Dir(s.From.Upper))
		if err != nil {
			return err
		}
		defer from.Close()
		base := path.Base(s.From.Upper)
		if there, err := has(from, base, s.From.Is); !there || err != nil {
			return err
		}
		if err := a.dresser.stripAll(from.At(base)); err != nil {
			return err
		}
		return a.put(i, s, from, base, dir, name)
	}
	return a.remove(i, s, dir, name)
}

// put gives an object a name in the lower. If the object is not there any more, it has the name.
func (a *applier) put(i int, s *step, from *sys.Dir, base string, dir *sys.Dir, name string) error {
	var st, old sys.Stat
	if err := from.At(base).Stat(&st); err != nil {
		if err == unix.ENOENT {
			err = nil
		}
		return err
	}
	if s.Dress != nil {
		attrs := *s.Dress
		attrs.Flags &^= protection
		if err := a.dresser.dress(from.At(base), &attrs); err != nil {
			return err
		}
	}
	if err := a.mark(from, base, &s.Marks); err != nil {
		return err
	}
	switch err := dir.At(name).Stat(&old); {
	case err == unix.ENOENT:
	case err != nil:
		return err
	case old.Dev == st.Dev && old.Ino == st.Ino: // a rename would do nothing
		return from.Unlink(base)
	case isDir(&st) || isDir(&old): // a rename replaces other objects
		if err := rename(dir, name, a.old, strconv.Itoa(i)); err != nil {
			return err
		}
	}
	return rename(from, base, dir, name)
}

func isDir(st *sys.Stat) bool { return st.Mode&unix.S_IFMT == unix.S_IFDIR }

// mark gives a directory the marks that it needs because of further lowers.
func (a *applier) mark(from *sys.Dir, base string, marks *marks) error {
	if !marks.Opaque && marks.Redirect == "" {
		return nil
	}
	d, err := from.OpenDir(base)
	if err != nil {
		return err
	}
	defer d.Close()
	if marks.Opaque {
		return a.whiteouts.MakeOpaque(d)
	}
	return a.whiteouts.Forms.Default.Xattrs.SetRedirect(d.Ref(), marks.Redirect)
}

// remove removes a name. With a whiteout the name stays gone above the further lowers.
func (a *applier) remove(i int, s *step, dir *sys.Dir, name string) error {
	there, err := has(dir, name, s.Old)
	if err != nil {
		return err
	}
	if there {
		if err := rename(dir, name, a.old, strconv.Itoa(i)); err != nil {
			return err
		}
	}
	if !s.Whiteout {
		return nil
	}
	var st sys.Stat
	if err := dir.At(name).Stat(&st); err != unix.ENOENT {
		return err // it is covered, or an error
	}
	return a.whiteouts.Cover(whiteout.Entry{Dir: dir, Name: name, Has: whiteout.Lower, Below: true})
}

// rename moves an entry. If permissions or flags forbid that, it takes them away, which the owner
// may do; directories that stay in the lower get theirs again at the end.
func rename(from *sys.Dir, name string, to *sys.Dir, newName string) error {
	err := from.Rename(name, to, newName, 0)
	if err != unix.EACCES && err != unix.EPERM {
		return err
	}
	for _, r := range []sys.Ref{from.Ref(), to.Ref(), from.At(name), to.At(newName)} {
		allow(r)
	}
	if errAgain := from.Rename(name, to, newName, 0); errAgain != nil {
		return fmt.Errorf("cannot move it: %w", errAgain)
	}
	return nil
}

// allow takes away what forbids to move an object. The move that follows reports the error.
func allow(r sys.Ref) {
	var st sys.Stat
	if r.Stat(&st) != nil {
		return
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		_ = setFlags(r, protection, 0)
		_ = r.Chmod(st.Mode&0o7777 | 0o700)
	case unix.S_IFREG:
		_ = setFlags(r, protection, 0)
	}
}

// stripAll is strip for an object whose owner may not be allowed to write to it.
func (d *dresser) stripAll(inode sys.Ref) error {
	err := d.strip(inode)
	if err == unix.EACCES && allowWrites(d.scheme.On(inode)) == nil {
		err = d.strip(inode)
	}
	return err
}
