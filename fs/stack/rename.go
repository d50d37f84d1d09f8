package stack

import (
	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// End is one end of a rename. Up is the upper's directory of Dir.
type End struct {
	Dir   *Dir
	Up    *sys.Dir
	Name  string
	Found Found
}

// Rename moves the upper's object at from to to, replacing what is there. A directory has no lower part, and one that is
// replaced shows no entry: the caller has checked.
func (s *Stack) Rename(from, to *End) error {
	isDir := from.Found.IsDir()
	if isDir && from.Found.Below && s.format.Devices && !s.format.RenameWhiteout {
		return unix.EXDEV // the old name would show its lower for a moment: the caller's program copies instead
	}
	if err := s.cutOff(from, to); err != nil {
		return err
	}
	if to.Found.IsDir() && to.Found.State == InUpper {
		if err := s.emptyDir(to); err != nil {
			return err
		}
	}
	if err := s.move(from, to, isDir); err != nil {
		return err
	}
	if to.Found.Marker {
		s.unmark(to.Up, to.Name)
	}
	s.noteAbsent(from.Dir, from.Name, from.Found.Below)
	to.Dir.note(to.Name, from.Found.Stat.Mode)
	return nil
}

// cutOff makes a directory opaque before it comes to a name with something below, which it must not merge with. Where it
// still lies nothing is below it that shows, so the mark changes nothing there.
func (s *Stack) cutOff(from, to *End) error {
	if !from.Found.IsDir() || !to.Found.Below {
		return nil
	}
	h, err := from.Up.OpenDir(from.Name)
	if err != nil {
		return err
	}
	defer h.Close()
	return s.format.MarkOpaque(h)
}

// move is the rename itself. The old name gets a whiteout where a lower would show.
func (s *Stack) move(from, to *End, isDir bool) error {
	overDevice := to.Found.State == Whiteout && !to.Found.Marker
	switch {
	case isDir && overDevice: // a directory cannot replace a device: they change places
		if err := from.Up.Rename(from.Name, to.Up, to.Name, unix.RENAME_EXCHANGE); err != nil {
			return err
		}
		if !from.Found.Below {
			_ = from.Up.Unlink(from.Name) // a whiteout of nothing hides nothing
		}
		return nil
	case !from.Found.Below:
		return from.Up.Rename(from.Name, to.Up, to.Name, 0)
	case !s.format.Devices:
		if err := mark(from.Up, from.Name); err != nil { // hides the lower, not the object beside it
			return err
		}
		return from.Up.Rename(from.Name, to.Up, to.Name, 0)
	case s.format.RenameWhiteout:
		return from.Up.Rename(from.Name, to.Up, to.Name, unix.RENAME_WHITEOUT)
	}
	// Both names show the object for a moment, which is not lost and hides its lower; then the old one is covered.
	w, tmp := s.work.Dir(), s.work.Name()
	if err := w.Link(from.Up.At(from.Name), tmp); err != nil {
		return err
	}
	if err := w.Rename(tmp, to.Up, to.Name, 0); err != nil {
		_ = w.Unlink(tmp) // the error to tell is the first
		return err
	}
	return s.coverFile(from.Up, from.Name)
}

// emptyDir replaces a directory of the upper that shows nothing, but may hold whiteouts, by an empty opaque one of the same
// owner and mode, so that it can be renamed over (ovl_clear_empty).
func (s *Stack) emptyDir(e *End) error {
	h, err := e.Up.OpenDir(e.Name)
	if err != nil {
		return err
	}
	defer h.Close()
	empty := true
	if err := h.List(func(sys.Dirent) error { empty = false; return nil }); err != nil {
		return err
	}
	if empty {
		return nil
	}
	w, tmp := s.work.Dir(), s.work.Name()
	if err := s.stageEmpty(w, tmp, &e.Found.Stat); err != nil {
		_ = s.work.Remove(tmp) // the error to tell is the first
		return err
	}
	if err := w.Rename(tmp, e.Up, e.Name, unix.RENAME_EXCHANGE); err != nil {
		_ = s.work.Remove(tmp)
		return err
	}
	_ = s.work.Remove(tmp) // as in coverDir
	return nil
}

func (s *Stack) stageEmpty(w *sys.Dir, tmp string, st *sys.Stat) error {
	if err := w.Mkdir(tmp, st.Mode&0o7777); err != nil {
		return err
	}
	if st.Uid != s.uid || st.Gid != s.gid {
		if err := w.At(tmp).Chown(st.Uid, st.Gid); err != nil {
			return err
		}
	}
	if s.format.OpaqueXattr == "" {
		return nil // a marker file would keep it from being renamed over; its name has a marker beside it instead
	}
	h, err := w.OpenDir(tmp)
	if err != nil {
		return err
	}
	defer h.Close()
	return s.format.MarkOpaque(h)
}

// Exchange swaps the upper's objects at both ends. A directory among them has no lower part.
func (s *Stack) Exchange(a, b *End) error {
	if err := s.cutOff(a, b); err != nil {
		return err
	}
	if err := s.cutOff(b, a); err != nil {
		return err
	}
	if err := a.Up.Rename(a.Name, b.Up, b.Name, unix.RENAME_EXCHANGE); err != nil {
		return err
	}
	a.Dir.note(a.Name, b.Found.Stat.Mode)
	b.Dir.note(b.Name, a.Found.Stat.Mode)
	return nil
}
