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
	size        int64 // i_size
}

// hasRead is what the kernel does after a READ of a page that it sent with the present version of
// the attributes: the file ends where the data of the READ ends (fuse_short_read).
func (k *whileGrowing) hasRead(data string) { k.size = min(k.size, int64(len(data))) }

func (k *whileGrowing) InodeNotify(uint64, int64, int64) fuse.Status {
	k.drop()
	return fuse.OK
}

func (k *whileGrowing) InodeNotifyStoreCache(_ uint64, offset int64, data []byte) fuse.Status {
	k.size = max(k.size, offset+int64(len(data)))
	k.store() // fuse_notify_store waits for the page after i_size has grown
	return fuse.OK
}

// With passthrough, a file that is open through the page cache already is written past it. While
// such a WRITE makes it longer, the page cache stores nothing beyond the old size. It sees the new
// data as soon as i_size has grown, so that no READ sets i_size back.
func TestPagesWhileADirectWriteMakesAFileLonger(t *testing.T) {
	s := newSite(t, "", "file low \"old\"")
	s.passing()
	low := s.wantOpen("low", unix.O_RDONLY, 0)
	s.wantOpen("low", unix.O_RDWR, 0)
	k := &whileGrowing{size: int64(len("old"))}
	var saw []string
	see := func() {
		text, err := s.readNode(low, 0, 4096)
		must(t, err)
		k.hasRead(text)
		if saw = append(saw, text); len(saw) < 3 {
			must(t, s.writtenBack(0, low, 0, "OLD\x00\x00\x00", 0)) // a page that has come in before, and the new i_size
		}
	}
	k.store, k.drop = see, see
	s.o.kernel.server = k
	must(t, s.writeBy(directHandle, low, 3, "new", 0))
	if len(saw) < 2 || saw[0] != "oldnew" || saw[1] != "OLDnew" {
		t.Errorf("read meanwhile: %q, want all when i_size has grown, and when pages are dropped", saw)
	}
	if k.size != int64(len("OLDnew")) {
		t.Errorf("i_size is %d before the reply, so that writeback would zero the new bytes", k.size)
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
