package fs

import (
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// whileGrowing is a kernel in which a mapping is read and written back while it is notified.
type whileGrowing struct {
	server
	store, drop func()
}

func (k *whileGrowing) InodeNotify(uint64, int64, int64) fuse.Status {
	k.drop()
	return fuse.OK
}

func (k *whileGrowing) InodeNotifyStoreCache(uint64, int64, []byte) fuse.Status {
	k.store()
	return fuse.OK
}

// With passthrough, a file that is open through the page cache already is written past it. While
// such a WRITE makes it longer, the page cache sees and stores nothing beyond the old size until
// i_size has grown, and then sees the new data.
func TestPagesWhileADirectWriteMakesAFileLonger(t *testing.T) {
	s := newSite(t, "", "file low \"old\"")
	s.passing()
	low := s.wantOpen("low", unix.O_RDONLY, 0)
	s.wantOpen("low", unix.O_RDWR, 0)
	var saw []string
	see := func() {
		text, err := s.readNode(low, 0, 4096)
		must(t, err)
		if saw = append(saw, text); len(saw) < 3 {
			must(t, s.writtenBack(0, low, 0, "OLD\x00\x00\x00", 0)) // a page that has come in before, and the new i_size
		}
	}
	s.o.kernel.server = &whileGrowing{store: see, drop: see}
	must(t, s.writeBy(directHandle, low, 3, "new", 0))
	if len(saw) < 2 || saw[0] != "old" || saw[1] != "OLDnew" {
		t.Errorf("read meanwhile: %q, want the old size while i_size grows, and all when pages are dropped", saw)
	}
	text, err := s.readNode(low, 0, 4096)
	if err != nil || text != "OLDnew" {
		t.Errorf("in the end %q, %v", text, err)
	}
	must(t, s.writtenBack(0, low, 0, "all of it", 0))
	if text, err := s.readNode(low, 0, 4096); err != nil || text != "all of it" {
		t.Errorf("written back later: %q, %v", text, err)
	}
	saw = nil
	must(t, s.writeBy(directHandle, low, 0, "same size", 0))
	if len(saw) != 1 { // what has been read since the last such write is dropped
		t.Errorf("a write that makes nothing longer: %q", saw)
	}
	s.release(low)
	s.release(low)
}
