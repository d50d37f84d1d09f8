package stack

import (
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// dupped returns an inherited directory by descriptors of the same open files.
func dupped(t *testing.T, d sys.InheritedDir) sys.InheritedDir {
	t.Helper()
	for _, fd := range []*int{&d.FD, &d.Clone} {
		if *fd >= 0 {
			other, err := unix.Dup(*fd)
			must(t, err)
			*fd = other
		}
	}
	return d
}

// A process that inherits the layers shows the same tree, sweeps the work directory, can change the
// upper, and keeps the locks. It needs no path.
func TestInherit(t *testing.T) {
	s := newSite(t, "file u", "file a\nfile d/x", "file b\nfile d/y")
	want := s.view()
	i := s.Inheritable()
	next := &Inherited{Overlap: i.Overlap}
	for _, d := range i.Lowers {
		next.Lowers = append(next.Lowers, dupped(t, d))
	}
	upper, work := dupped(t, *i.Upper), dupped(t, *i.Work)
	next.Upper, next.Work = &upper, &work
	if fds := next.Descriptors(); len(fds) < 4 || slices.Contains(fds, -1) {
		t.Errorf("descriptors: %v", fds)
	}
	byPath := s.cfg
	s.shut()

	c := byPath
	c.Inherited = next
	for n := range c.Lowers {
		c.Lowers = slices.Clone(c.Lowers)
		c.Lowers[n] = "/nowhere"
	}
	c.Upper, c.Work = "/nowhere", "/nowhere"
	heir, err := Open(c)
	must(t, err)
	if other, err := Open(byPath); err == nil {
		other.Close()
		t.Error("the upper is not locked")
	}
	heir.PublishAgain(sys.Holder{Dev: 1, PID: 2})
	if h, ok := heir.layers[Upper].root.Holder(); ok {
		t.Errorf("its own locks are those of another process: %+v", h)
	}
	shown := &site{t: t, Stack: heir, cfg: byPath}
	if got := shown.view(); got != want {
		t.Errorf("the inherited stack shows\n%s\nwant\n%s", got, want)
	}
	must(t, shown.dir("").withNames().remove("a"))
	heir.Close()
	openSite(t, byPath).wantView("opened again", "file b\ndir d\nfile d/x\nfile d/y\nfile u")
}

// A directory that has lost its name is empty.
func TestRemovedDir(t *testing.T) {
	d := RemovedDir(2)
	if !d.IsListed() || !d.Empty() || d.Top() != 2 || d.LiesElsewhere() {
		t.Errorf("%+v", d)
	}
	if d := InheritedDir([]uint16{1, 3}); d.IsListed() || d.HasUpper() || !d.MayMerge() {
		t.Errorf("%+v", d)
	}
}
