package check

import (
	"fmt"
	"path"
	"strings"

	"github.com/fuse-overlay/fuse-overlay/fs/stack"
	"github.com/fuse-overlay/fuse-overlay/internal/ondisk"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// Writer is the upper and the work directory, open for writing and locked: no mount can use them.
type Writer struct {
	upper, work *sys.Dir // work is nil if there is none
}

// Lock opens and locks upper and work directory. An error is one line that names the directory and
// the mount that uses it.
func Lock(c Config) (*Writer, error) {
	upper, work, err := stack.TakeUpper(stack.Config{Upper: c.Layers.Upper, Work: c.Work})
	if err != nil {
		return nil, err
	}
	return &Writer{upper, work}, nil
}

// Close unlocks the directories.
func (w *Writer) Close() {
	w.upper.Close()
	if w.work != nil {
		w.work.Close()
	}
}

// Sync makes all repairs durable.
func (w *Writer) Sync() error { return w.upper.SyncFS() }

// Repair mends what a finding is about. It loses no data. If the process ends in between, the next
// check finds the same, or what is left of it.
type Repair struct {
	// Text is what the repair does, in the imperative.
	Text  string
	apply func(*Writer) error
}

// Apply makes the repair. Precondition: the finding was made while w was open.
func (r *Repair) Apply(w *Writer) error {
	if err := r.apply(w); err != nil {
		return fmt.Errorf("cannot %s: %w", r.Text, err)
	}
	return nil
}

// repair returns a repair of an object of the upper; nil in any other layer. mend gets the object,
// and the directory that it is in; for the root that is the root itself.
func (w *layerWalk) repair(o *object, text string, mend func(in *sys.Dir, r sys.Ref) error) *Repair {
	if !w.isUpper() {
		return nil
	}
	where, name := o.path, o.name
	return &Repair{text, func(to *Writer) error {
		parent, _ := path.Split(where)
		in, err := to.upper.OpenDir(strings.TrimSuffix(parent, "/"))
		if err != nil {
			return err
		}
		defer in.Close()
		r := in.Ref()
		if name != "" {
			r = in.At(name)
		}
		return mend(in, r)
	}}
}

// removeMark returns the repair that removes a mark which does not count.
func (w *layerWalk) removeMark(o *object, a ondisk.Attr) *Repair {
	name := o.mark(a)
	return w.repair(o, "remove "+name, func(_ *sys.Dir, r sys.Ref) error { return r.RemoveXattr(name) })
}
