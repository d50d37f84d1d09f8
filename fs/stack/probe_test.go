package stack

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// A probe file lies on the upper's file system and has no name.
func TestSample(t *testing.T) {
	s := newSite(t, "", "file f")
	f, err := s.ProbeFile()
	must(t, err)
	var st, upper sys.Stat
	must(t, f.Ref().Stat(&st))
	must(t, s.Root(Upper).Ref().Stat(&upper))
	if st.Dev != upper.Dev || st.Mode&unix.S_IFMT != unix.S_IFREG || st.Nlink != 0 {
		t.Errorf("device %d, want %d; mode %o, %d names", st.Dev, upper.Dev, st.Mode, st.Nlink)
	}
	f.Close()
	s.wantEmptyWork()
	for _, call := range []string{"openat", "unlinkat"} {
		sys.SetFault(func(op sys.Op) error {
			if op.Call == call {
				return unix.ENOSPC
			}
			return nil
		})
		_, err := s.ProbeFile()
		sys.SetFault(nil)
		if err != unix.ENOSPC {
			t.Errorf("%s fails: %v", call, err)
		}
	}
}

func TestSampleWithoutUpper(t *testing.T) {
	c := newFolders(t, "", "file f")
	c.Upper, c.Work = "", ""
	s := openSite(t, c)
	f, err := s.ProbeFile()
	must(t, err)
	f.Close()
}
