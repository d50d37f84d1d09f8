package fs

import (
	"testing"

	"golang.org/x/sys/unix"
)

// If layers change, an inode number can belong to an object of another kind than before, while a
// node of the former object has two names. The removal of one of them looked for its object without
// end.
func TestInodeOfAnotherKind(t *testing.T) {
	c := newFolders(t, "file file text\nlink linked file", "")
	c.LayersChange = true
	s := openSite(t, c)
	id, err := s.walk("file")
	must(t, err)
	other, err := s.walk("linked")
	must(t, err)
	if id != other {
		t.Fatalf("two links have nodes %d and %d", id, other)
	}
	before, err := s.o.node(id)
	must(t, err)
	before.kind = unix.S_IFIFO // the inode was that of a fifo
	s.do(s.unlink("file"))
	now, err := s.walk("linked")
	must(t, err)
	if now == id {
		t.Error("the new object has the node of the former one")
	}
	if text, err := s.read("linked"); text != "text" || err != nil {
		t.Errorf("%q, %v", text, err)
	}
}
