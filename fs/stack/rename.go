package stack

import (
	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/ondisk"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
	"github.com/fuse-overlay/fuse-overlay/whiteout"
)

// End is one end of a rename. Up is the upper's directory of Dir.
type End struct {
	Dir   *Dir
	Up    *sys.Dir
	Name  string
	Found Found
	// Merged: it is a directory with a lower part, to which Redirect leads after the rename; empty: the redirect that it has.
	Merged   bool
	Redirect string
	// HasOrigin: it is no directory, and has the inode number of a lower's object.
	HasOrigin bool
}

// Rename moves the upper's object at from to to, replacing what is there. A directory that is replaced shows no entry: the
// caller has checked.
func (s *Stack) Rename(from, to *End) error {
	if err := s.leave(from, to); err != nil {
		return err
	}
	if err := s.admitOrigin(from, to); err != nil {
		return err
	}
	emptied := ""
	if to.Found.IsDir() && to.Found.State == InUpper {
		var err error
		if emptied, err = s.emptyDir(to); err != nil {
			return err
		}
	}
	inPlace, err := s.move(from, to)
	if emptied != "" {
		if err != nil {
			_ = s.work.Dir().Rename(emptied, to.Up, to.Name, unix.RENAME_EXCHANGE) // back: it may be in use
		}
		_ = s.work.Remove(emptied) // as in coverDir
	}
	if err != nil {
		return err
	}
	if to.Found.Marker {
		s.unmark(to.Up, to.Name)
	}
	if inPlace {
		from.Dir.noteWhiteout(from.Name, false, from.Found.Below)
	} else {
		s.noteAbsent(from.Dir, from.Name, from.Found.Below)
	}
	to.Dir.note(to.Name, from.Found.Stat.Mode)
	return nil
}

// leave prepares a directory for another name. One with a lower part gets the redirect to it: where it still lies that leads to
// what is there anyway. Any other is made opaque before it comes to a name with something below, which it must not merge
// with; where it still lies nothing is below it that shows, so the mark changes nothing there.
func (s *Stack) leave(from, to *End) error {
	if from.Redirect != "" {
		err := s.format.Xattrs.SetRedirect(from.Up.At(from.Name), from.Redirect)
		if err == unix.EOPNOTSUPP {
			err = unix.EXDEV // as without redirects
		}
		return err
	}
	if !from.Found.IsDir() || from.Merged || !to.Found.Below {
		return nil
	}
	h, err := from.Up.OpenDir(from.Name)
	if err != nil {
		return err
	}
	defer h.Close()
	return s.format.MarkOpaque(h)
}

// admitOrigin prepares the directory that an object is moved to, if it is another: where it is looked at, its origin has to be
// looked for.
func (s *Stack) admitOrigin(from, to *End) error {
	if !from.HasOrigin && !from.Merged || from.Dir == to.Dir {
		return nil
	}
	return s.MarkImpure(to.Dir, to.Up)
}

// move is the rename itself. The old name gets a whiteout where a lower would show; inPlace: one that stands under the
// name itself, whatever the format.
func (s *Stack) move(from, to *End) (inPlace bool, err error) {
	isDir, overDevice := from.Found.IsDir(), to.Found.State == Whiteout && !to.Found.Marker
	form := s.formatOf(from.Name)
	switch {
	case overDevice && (isDir || from.Found.Below && form.InPlace()):
		return s.moveByExchange(form, from, to)
	case !from.Found.Below:
		return false, from.Up.Rename(from.Name, to.Up, to.Name, 0)
	case !form.InPlace():
		if err := mark(from.Up, from.Name); err != nil { // hides the lower, not the object beside it
			return false, err
		}
		return false, from.Up.Rename(from.Name, to.Up, to.Name, 0)
	case form.RenameWhiteout:
		return true, from.Up.Rename(from.Name, to.Up, to.Name, unix.RENAME_WHITEOUT)
	case !to.Found.Exists():
		if err := s.coverNothing(form, to.Up, to.Name); err != nil { // a whiteout of nothing, or of what is hidden already
			return false, err
		}
		to.Dir.noteWhiteout(to.Name, false, to.Found.Below)
		return s.moveByExchange(form, from, to)
	case isDir:
		return false, unix.EXDEV // the old name would show its lower for a moment: the caller's program copies instead
	}
	return true, s.moveByLink(form, from, to)
}

// moveByExchange swaps the object and the whiteout in its way: a directory cannot replace one, and the old name may
// need one.
func (s *Stack) moveByExchange(form whiteout.Format, from, to *End) (inPlace bool, err error) {
	if err := s.fitWhiteout(form, from, to); err != nil {
		return false, err
	}
	err = from.Up.Rename(from.Name, to.Up, to.Name, unix.RENAME_EXCHANGE)
	if sys.NoRenameFlags(err) {
		if from.Found.Below && form.InPlace() && !from.Found.IsDir() {
			return true, s.moveByLink(form, from, to)
		}
		if from.Found.Below {
			if err := mark(from.Up, from.Name); err != nil {
				return false, err
			}
		}
		return false, s.moveBeside(from.Up, from.Name, to.Up, to.Name)
	}
	if err != nil {
		return false, err
	}
	if from.Found.Below {
		return true, nil
	}
	return from.Up.Unlink(from.Name) != nil, nil // a whiteout of nothing hides nothing
}

// fitWhiteout sees to it that the whiteout at to is one under the name of from as well: one in the form of an attribute is
// an empty file in a directory that does not admit it. EXDEV where there is no such form.
func (s *Stack) fitWhiteout(form whiteout.Format, from, to *End) error {
	if !form.InPlace() {
		form = s.long
	}
	if form.WhiteoutXattrs {
		return form.Admit(from.Up)
	}
	var st sys.Stat
	switch err := to.Up.At(to.Name).Stat(&st); {
	case err != nil || sys.IsWhiteoutDevice(&st):
		return err
	case form.Devices:
		return s.coverFile(form, to.Up, to.Name)
	}
	return unix.EXDEV
}

// moveByLink replaces a file in two steps: both names show the object for a moment, which is not lost and hides its
// lower; then the old one is covered.
func (s *Stack) moveByLink(form whiteout.Format, from, to *End) error {
	cover, err := s.makeWhiteout(form, from.Up)
	if err != nil {
		return err
	}
	w, tmp := s.work.Dir(), s.work.Name()
	if err = w.Link(from.Up.At(from.Name), tmp); err == nil {
		if err = w.Rename(tmp, to.Up, to.Name, 0); err == nil {
			err = w.Rename(cover, from.Up, from.Name, 0)
		}
	}
	if err != nil {
		_ = s.work.Remove(tmp) // the error to tell is the first
		_ = s.work.Remove(cover)
	}
	return err
}

// emptyDir replaces a directory of the upper that shows nothing, but may hold whiteouts, by an empty opaque one that looks
// the same, so that it can be renamed over (ovl_clear_empty). It returns the name of the former in the work directory,
// none where the directory was empty.
func (s *Stack) emptyDir(e *End) (former string, err error) {
	h, err := e.Up.OpenDir(e.Name)
	if err != nil {
		return "", err
	}
	defer h.Close()
	empty := true
	if err := h.List(func(sys.Dirent) error { empty = false; return nil }); err != nil || empty {
		return "", err
	}
	if s.format.Xattrs == ondisk.NoXattrs && e.Found.Below { // a marker inside would keep it from being renamed over
		if err := mark(e.Up, e.Name); err != nil {
			return "", err
		}
		e.Found.Marker = true
	}
	w, tmp := s.work.Dir(), s.work.Name()
	err = s.stageEmpty(w, tmp, h.Ref())
	if err == nil {
		err = w.Rename(tmp, e.Up, e.Name, unix.RENAME_EXCHANGE)
	}
	if err != nil {
		_ = s.work.Remove(tmp) // the error to tell is the first
		if sys.NoRenameFlags(err) {
			err = s.emptyInPlace(e, h)
		}
		return "", err
	}
	return tmp, nil
}

// emptyInPlace removes the whiteouts that a directory holds where it cannot be exchanged for an empty one. A marker beside it
// hides what is below before: each state shows the same.
func (s *Stack) emptyInPlace(e *End, h *sys.Dir) error {
	if e.Found.Below {
		if err := mark(e.Up, e.Name); err != nil {
			return err
		}
		e.Found.Marker = true
	}
	var names []string
	err := h.List(func(entry sys.Dirent) error { names = append(names, entry.Name); return nil })
	for i := 0; err == nil && i < len(names); i++ {
		err = h.Unlink(names[i])
	}
	return err
}

// stageEmpty makes an empty opaque directory with the attributes of inode.
func (s *Stack) stageEmpty(w *sys.Dir, tmp string, inode sys.Ref) error {
	if err := w.Mkdir(tmp, 0o700); err != nil {
		return err
	}
	h, err := w.OpenDir(tmp)
	if err != nil {
		return err
	}
	defer h.Close()
	if s.format.Xattrs != ondisk.NoXattrs {
		if err := s.format.MarkOpaque(h); err != nil {
			return err
		}
	}
	kept := s.layers[Upper].onDisk
	model, r := kept.On(inode), kept.On(h.Ref())
	var st sys.Stat
	if err := model.Stat(&st); err != nil {
		return err
	}
	recorded, err := r.Record(&st)
	if err != nil {
		return err
	}
	if !recorded {
		if err := r.Chown(st.Uid, st.Gid); err != nil {
			return err
		}
		if err := r.Chmod(st.Mode & 0o7777); err != nil {
			return err
		}
	}
	names, err := model.ListXattr()
	if err != nil {
		return err
	}
	for _, name := range names {
		if s.names.Private(name) {
			continue
		}
		value, err := model.GetXattr(name)
		if err == nil {
			err = r.SetXattr(name, value, 0)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Exchange swaps the upper's objects at both ends.
func (s *Stack) Exchange(a, b *End) error {
	if err := s.leave(a, b); err != nil {
		return err
	}
	if err := s.leave(b, a); err != nil {
		return err
	}
	if err := s.admitOrigin(a, b); err != nil {
		return err
	}
	if err := s.admitOrigin(b, a); err != nil {
		return err
	}
	if err := a.Up.Rename(a.Name, b.Up, b.Name, unix.RENAME_EXCHANGE); err != nil {
		return err
	}
	a.Dir.note(a.Name, b.Found.Stat.Mode)
	b.Dir.note(b.Name, a.Found.Stat.Mode)
	return nil
}
