package fs

import (
	"testing"

	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// A copy-up of many is prepared, one by itself is not, and in the end nothing is held.
func TestCopyUpsArePreparedWhileTheyComeFast(t *testing.T) {
	t.Setenv("TMPDIR", "/tmp") // in memory, copies have names
	s := newSite(t, "", letters('a', 'd'))
	nameless := func(made []sys.Op) (n int) {
		for _, op := range made {
			if op.Call == "openat" && op.Name == "." {
				n++
			}
		}
		return n
	}
	chmod := func(p string) []sys.Op { return calls(func() { s.do(s.chmod(p, 0o600)) }) }
	use := func() []sys.Op {
		return calls(func() {
			for s.o.Idle() {
			}
		})
	}
	chmod("d/a")
	if n := nameless(use()); n != 0 {
		t.Errorf("after one copy-up, %d files were made for the next", n)
	}
	s.o.PaceChanged(true)
	fds := openFDs(t)
	if n := nameless(use()); n != 1 {
		t.Errorf("%d files were made for the next copy-up, want 1", n)
	}
	if n := nameless(chmod("d/b")); n != 0 {
		t.Errorf("the next copy-up made %d files", n)
	}
	use()
	s.o.PaceChanged(false)
	if n := openFDs(t); n != fds+1 { // that of d/b
		t.Errorf("%d descriptors afterwards, %d before and one copy", n, fds)
	}
	if n := nameless(use()); n != 0 {
		t.Errorf("without haste, %d files were made", n)
	}
	if n := nameless(chmod("d/c")); n != 1 {
		t.Errorf("a copy-up with nothing prepared made %d files", n)
	}
	s.wantEmptyWork("afterwards")
}

// What goes wrong in time that nobody waits for stops nobody.
func TestPanicMeanwhile(t *testing.T) {
	r := newReading(t, "", letters('a', 'h'))
	in := r.inOrder()
	for _, name := range in[:2] {
		if _, err := r.readNode(r.ids[name], 0, 8192); err != nil {
			t.Fatal(err)
		}
		sys.SetFault(func(op sys.Op) error {
			if name == in[1] && op.Call == "openat" {
				panic("a fault")
			}
			return nil
		})
		idle := func() (done bool) {
			defer func() { _ = recover() }() // as the connection does
			return r.o.Idle()
		}
		for idle() {
		}
		sys.SetFault(nil)
	}
	r.read(in[2], "text of "+in[2])
	r.do(r.write("d/"+in[3], 0, "TEXT"))
}
