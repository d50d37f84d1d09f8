package fs

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/fs/conn"
)

const largeText = "0123456789abcdef"

// newLarge is a site with passthrough and a lower with one file that is large enough for it, and
// one that is not.
func newLarge(t *testing.T) (*site, *backings) {
	t.Helper()
	c := newFolders(t, "", "file small \"text\"")
	must(t, os.WriteFile(filepath.Join(c.Lowers[0], "large"), []byte(strings.Repeat(largeText, bulk/len(largeText))), 0o644))
	s := openSite(t, c)
	return s, s.passing()
}

func (s *site) wantRead(id, off uint64, text string) {
	s.t.Helper()
	got, err := s.readNode(id, off, len(text))
	must(s.t, err)
	if got != text {
		s.t.Errorf("read %q, want %q", got, text)
	}
}

func (s *site) wantNoneOpen(b *backings) {
	s.t.Helper()
	counts := &s.o.passthrough.counts
	if len(b.open)+b.closed+len(counts.byID)+counts.lowers > 0 {
		s.t.Errorf("left: %v; closed twice: %d; thought open: %v, %d of lowers", b.open, b.closed, counts.byID, counts.lowers)
	}
}

// Processes that read a large file of a lower read it by passthrough, also after a change of
// attributes. A process that writes it gets another inode, and both inodes lead to the one file.
func TestReadersOfALowerAreSplit(t *testing.T) {
	s, b := newLarge(t)
	s.o.policy.Timeout = conn.Endless
	s.release(s.wantOpen("small", unix.O_RDONLY, 0))
	id := s.wantOpen("large", unix.O_RDONLY, 1)
	s.wantOpen("large", unix.O_RDONLY, 1)
	s.do(s.chmod("large", 0o600))
	if again := s.wantOpen("large", unix.O_RDONLY, 1); again != id {
		t.Error("parted, though nobody has written")
	}
	_, err := s.openNode(id, unix.O_RDWR)
	want(t, "open for writing of what is read", err, unix.ESTALE)
	writer := s.wantOpen("large", unix.O_RDWR, 2)
	if writer == id {
		t.Fatal("not parted")
	}
	must(t, s.writeNode(writer, 0, "WRITTEN"))
	s.wantRead(id, 0, largeText)
	s.wantRead(writer, 0, "WRITTEN789abcdef")
	s.wantOpen("large", unix.O_RDONLY, 2)
	for _, flags := range []uint32{unix.O_RDONLY, unix.O_WRONLY} {
		_, err = s.openNode(id, flags)
		want(t, "open of the previous inode", err, unix.ESTALE)
	}
	s.do(s.truncate("large", 5))
	var seek fuse.LseekOut
	must(t, errorOf(s.o.Lseek(nil, &fuse.LseekIn{InHeader: s.header(id), Whence: unix.SEEK_HOLE}, &seek)))
	if seek.Offset != bulk {
		t.Errorf("what is read has a hole at %d", seek.Offset)
	}
	s.do(s.mknod("copy", unix.S_IFREG|0o644, 0))
	in := fuse.CopyFileRangeIn{InHeader: s.header(id), NodeIdOut: must1(s.walk("copy")), Len: bulk}
	if n, status := s.o.CopyFileRange(nil, &in); n != bulk {
		t.Errorf("copied %d bytes of what is read, %v", n, status)
	}

	in2 := fuse.SetAttrInCommon{InHeader: s.header(id), Valid: fuse.FATTR_MODE, Mode: 0o640}
	must(t, errorOf(s.o.SetAttr(nil, &fuse.SetAttrIn{SetAttrInCommon: in2}, &fuse.AttrOut{})))
	for _, id := range []uint64{id, writer} {
		var out fuse.AttrOut
		must(t, errorOf(s.o.GetAttr(nil, &fuse.GetAttrIn{InHeader: s.header(id)}, &out)))
		if out.Mode != unix.S_IFREG|0o640 || out.Size != 5 || out.AttrValid != 0 {
			t.Errorf("attributes %+v", out)
		}
	}
	for range 3 {
		s.release(id)
	}
	s.release(writer)
	if len(b.open) != 1 {
		t.Errorf("%d backings open, want 1", len(b.open))
	}
	_, err = s.openNode(id, unix.O_RDONLY)
	want(t, "open of the previous inode, which no process has open", err, unix.ESTALE)
	s.release(writer)
	s.wantNoneOpen(b)
	s.wantView("in the end", "file copy "+quoteLarge()+"\nfile large 0640 \"WRITT\"\nfile small \"text\"")

	s.forget(func(given uint64) bool { return given == writer })
	if _, err := s.getattr(id); err != nil {
		t.Errorf("the kernel knows the previous inode: %v", err)
	}
	s.forget(nil)
	if n := s.o.nodes.Len(); n != 1 {
		t.Errorf("%d nodes are left", n-1)
	}
	for _, id := range []uint64{id, writer} {
		_, err := s.getattr(id)
		want(t, "an inode that was forgotten", err, unix.ESTALE)
	}
}

func quoteLarge() string { return "\"" + strings.Repeat(largeText, bulk/len(largeText)) + "\"" }

// An open that fails because other processes read the lower's file has truncated nothing, since the
// process may not try again. If it does, it succeeds, even if the kernel has forgotten the file
// meanwhile and another process has looked it up and opened it.
func TestASplitTruncatesNothing(t *testing.T) {
	s, b := newLarge(t)
	id := s.wantOpen("large", unix.O_RDONLY, 1)
	_, err := s.openNode(id, unix.O_WRONLY|unix.O_TRUNC)
	want(t, "open with O_TRUNC of what is read", err, unix.ESTALE)
	s.wantView("after an open that failed", "file large "+quoteLarge()+"\nfile small \"text\"")
	s.release(id)
	s.forget(nil)
	next := s.wantOpen("large", unix.O_RDONLY, 2)
	if next == id {
		t.Error("not forgotten")
	}
	s.wantOpen("large", unix.O_WRONLY|unix.O_TRUNC, 2)
	s.release(next)
	s.release(next)
	s.wantNoneOpen(b)
	s.wantView("after O_TRUNC", "file large\nfile small \"text\"")
}

// truncate(2) opens nothing.
func TestTruncationParts(t *testing.T) {
	s, b := newLarge(t)
	id := s.wantOpen("large", unix.O_RDONLY, 1)
	s.do(s.truncate("large", 3))
	s.wantRead(id, 0, largeText)
	_, err := s.openNode(id, unix.O_RDONLY)
	want(t, "open by a name that was looked up before", err, unix.ESTALE)
	now := s.wantOpen("large", unix.O_RDONLY, 2)
	s.wantRead(now, 0, "012")
	s.release(id)
	s.release(now)
	s.wantNoneOpen(b)
}

// Readers and writers of one file of a lower at the same time: an open after a write has begun
// never reads the lower's data, and a process that has read that before goes on.
func TestReadersAndWritersOfALower(t *testing.T) {
	for range 20 {
		s, b := newLarge(t)
		var wg sync.WaitGroup
		// open opens the file as the kernel does, twice at most.
		open := func(flags uint32) (id uint64) {
			for range 2 {
				id = must1(s.walk("large"))
				_, err := s.openNode(id, flags)
				if err == nil {
					return id
				}
				if err != unix.ESTALE {
					t.Error(err)
				}
			}
			t.Error("ESTALE again")
			return id
		}
		read := func(id uint64) string {
			text, err := s.readNode(id, 0, 1)
			if err != nil {
				t.Error(err)
			}
			return text
		}
		for range 3 {
			wg.Go(func() {
				for range 20 {
					id := open(unix.O_RDONLY)
					read(id)
					s.release(id)
				}
			})
		}
		for range 2 {
			wg.Go(func() {
				id := open(unix.O_RDWR)
				if err := s.writeNode(id, 0, "W"); err != nil {
					t.Error(err)
				}
				reader := open(unix.O_RDONLY)
				if read(id) != "W" || read(reader) != "W" {
					t.Error("what was written is not read")
				}
				s.release(reader)
				s.release(id)
			})
		}
		wg.Wait()
		s.wantNoneOpen(b)
		s.shut()
	}
}

// Each file of a lower that is passed through keeps a descriptor, so there is a bound; beyond it
// the page cache serves.
func TestFilesOfLowersArePassedThroughWithinABound(t *testing.T) {
	s, b := newLarge(t)
	s.o.passthrough.counts.lowers = s.o.passthrough.counts.maxLowers
	s.release(s.wantOpen("large", unix.O_RDONLY, 0))
	s.o.passthrough.counts.lowers = 0
	s.release(s.wantOpen("large", unix.O_RDONLY, 1))
	s.wantNoneOpen(b)
}
