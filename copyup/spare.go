package copyup

import "github.com/fuse-overlay/fuse-overlay/internal/sys"

// Making a nameless file takes a fifth of a small copy-up, and the next one will need it: it can be made in time that nobody waits
// for.

// spare is a nameless file that nobody uses yet.
type spare struct {
	file *sys.File
	mode uint32
}

// wanted is set in Work.wanted besides the mode that the last nameless file was made with.
const wanted = 1 << 31

// nameless makes a file without a name, or takes the one that was made before.
func (w *Work) nameless(mode uint32) (*sys.File, error) {
	w.wanted.Store(wanted | mode)
	if s := w.spare.Swap(nil); s != nil {
		if s.mode == mode {
			return s.file, nil
		}
		s.file.Close()
	}
	return w.dir.CreateNameless(mode)
}

// Prepare makes the file that the next copy of a regular file is likely to need, if there was a copy since the last time, and
// reports whether there was. An error is for who needs the file, if it is one then. [Work.Relax] gives the file back.
func (w *Work) Prepare() bool {
	want := w.wanted.Swap(0)
	if want == 0 {
		return false
	}
	mode := want &^ wanted
	if file, err := w.dir.CreateNameless(mode); err == nil {
		w.keep(&spare{file, mode})
	}
	return true
}

// Relax gives back what was prepared.
func (w *Work) Relax() { w.keep(nil) }

func (w *Work) keep(s *spare) {
	if old := w.spare.Swap(s); old != nil {
		old.file.Close()
	}
}
