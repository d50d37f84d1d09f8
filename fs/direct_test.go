package fs

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// notified is a kernel that notes what notifications drop.
type notified struct {
	server
	dropped []string
}

func (k *notified) InodeNotify(id uint64, offset, length int64) fuse.Status {
	k.dropped = append(k.dropped, fmt.Sprint(id, " ", offset, " ", length))
	return fuse.OK
}

// newDirect makes an empty file whose maker has it open with these flags, and returns its node and
// handle.
func (s *site) newDirect(p string, flags uint32) (id, handle uint64) {
	s.t.Helper()
	s.o.policy.DirectIO = true
	var out fuse.CreateOut
	must(s.t, s.create(p, 0o640, flags|unix.O_CREAT, &out)())
	return out.NodeId, out.Fh
}

func (s *site) writeBy(handle, id uint64, offset int, text string, flags uint32) error {
	return s.writeAs(&fuse.WriteIn{InHeader: s.header(id), Fh: handle, Offset: uint64(offset), Flags: flags}, text)
}

// writtenBack is a WRITE of what a mapping has left in the page cache, by whatever open file the
// kernel finds.
func (s *site) writtenBack(handle, id uint64, offset int, text string, flags uint32) error {
	in := &fuse.WriteIn{InHeader: s.header(id), Fh: handle, Offset: uint64(offset), WriteFlags: fuse.WRITE_CACHE, Flags: flags}
	return s.writeAs(in, text)
}

func (s *site) writeAs(in *fuse.WriteIn, text string) error {
	in.Size = uint32(len(text))
	_, status := s.o.Write(nil, in, []byte(text))
	return errorOf(status)
}

// A process that makes a file to write it, and does not append, writes past the page cache.
func TestFlagsThatWritePastThePageCache(t *testing.T) {
	s := newSite(t, "file there", "file d/below")
	s.o.policy.DirectIO = true
	for i, c := range []struct{ flags, want, handle uint32 }{
		{unix.O_WRONLY, fuse.FOPEN_DIRECT_IO, directHandle},
		{unix.O_WRONLY | unix.O_EXCL | unix.O_SYNC, fuse.FOPEN_DIRECT_IO, directHandle},
		{unix.O_WRONLY | unix.O_TRUNC, fuse.FOPEN_DIRECT_IO, directHandle},
		{unix.O_RDWR | unix.O_TRUNC, fuse.FOPEN_DIRECT_IO, directHandle},
		{unix.O_WRONLY | unix.O_APPEND, fuse.FOPEN_KEEP_CACHE, 0},
		{unix.O_RDWR | unix.O_TRUNC | unix.O_APPEND, fuse.FOPEN_KEEP_CACHE, 0},
		{unix.O_RDWR, fuse.FOPEN_KEEP_CACHE, 0},
		{unix.O_RDWR | unix.O_EXCL, fuse.FOPEN_KEEP_CACHE, 0},
		{unix.O_RDONLY | unix.O_TRUNC, fuse.FOPEN_KEEP_CACHE, 0},
		{unix.O_RDONLY, fuse.FOPEN_KEEP_CACHE, 0},
	} {
		var out fuse.CreateOut
		p := fmt.Sprint("d/new", i)
		must(t, s.create(p, 0o640, c.flags|unix.O_CREAT, &out)())
		if out.OpenFlags != c.want || out.Fh != uint64(c.handle) || out.Attr.Mode != unix.S_IFREG|0o640 {
			t.Errorf("flags %#x: answered by flags %#x and handle %d, mode %o", c.flags, out.OpenFlags, out.Fh, out.Attr.Mode)
		}
		must(t, s.writeBy(out.Fh, out.NodeId, 0, "text", c.flags))
		if text, err := s.read(p); err != nil || text != "text" {
			t.Errorf("flags %#x: reads %q, %v", c.flags, text, err)
		}
	}
	var out fuse.CreateOut
	want(t, "what is there", s.create("there", 0o640, unix.O_WRONLY, &out)(), unix.EEXIST)
}

// What is read between the moment when the kernel drops the pages and that when the data is there
// may be old, and must not stay. What was not read costs nothing.
func TestWhatWasReadBeforeADirectWriteIsDropped(t *testing.T) {
	s := newSite(t, "", "")
	k := &notified{}
	s.o.kernel.server = k
	id, handle := s.newDirect("new", unix.O_WRONLY)
	wantDropped := func(what string, ranges ...string) {
		t.Helper()
		for i := range ranges {
			ranges[i] = fmt.Sprint(id, " ", ranges[i])
		}
		if !slices.Equal(k.dropped, ranges) {
			t.Errorf("%s: dropped %q, want %q", what, k.dropped, ranges)
		}
		k.dropped = nil
	}
	write := func(by uint64, offset int) { t.Helper(); must(t, s.writeBy(by, id, offset, "text", 0)) }
	readBy := func(by uint64, flags uint32) {
		t.Helper()
		buf := make([]byte, 4096)
		in := &fuse.ReadIn{InHeader: s.header(id), Fh: by, ReadFlags: flags, Size: uint32(len(buf))}
		if _, status := s.o.Read(nil, in, buf); status != fuse.OK {
			t.Error(status)
		}
	}
	read := func() { t.Helper(); readBy(0, 0) }
	write(handle, 0)
	write(handle, 4)
	wantDropped("nobody has read")
	read()
	wantDropped("a read")
	write(0, 8)
	wantDropped("a write through the page cache")
	write(handle, 12)
	wantDropped("the first write since", "12 4")
	write(handle, 16)
	wantDropped("the next")
	sys.SetFault(func(op sys.Op) error {
		if op.Call == "pwrite64" {
			read()
		}
		return nil
	})
	write(handle, 20)
	sys.SetFault(nil)
	wantDropped("read just before the data was there", "20 4")
	readBy(handle, fuse.READ_LOCKOWNER)
	write(handle, 24)
	wantDropped("read past the page cache")
	readBy(handle, 0)
	must(t, s.writtenBack(handle, id, 0, "text", 0)) // would wait for itself: its page is locked
	wantDropped("what a mapping has left")
	write(handle, 28)
	wantDropped("read by a mapping of the same open file", "28 4")
	want(t, "a file that is not there", s.writeBy(handle, id+100, 0, "text", 0), unix.ESTALE)

	id, _ = s.newDirect("other", unix.O_RDWR)
	write(0, 0)
	read()
	write(0, 4)
	wantDropped("a file that nobody writes directly")
}

// With O_SYNC and O_DSYNC a direct write includes what a FSYNC does otherwise, and returns its
// error.
func TestDirectWritesAreSynced(t *testing.T) {
	for _, c := range []struct {
		name              string
		volatile, noFsync bool
		want              []string
	}{
		{"usual", false, false, []string{"fdatasync", "fsync"}},
		{"volatile", true, false, nil},
		{"fsync=0", false, true, nil},
	} {
		cfg := newFolders(t, "", "")
		cfg.Volatile, cfg.NoFsync = c.volatile, c.noFsync
		s := openSite(t, cfg)
		id, handle := s.newDirect("new", unix.O_WRONLY)
		var made []string
		for _, op := range calls(func() {
			for _, flags := range []uint32{0, unix.O_DSYNC, unix.O_SYNC} {
				must(t, s.writeBy(handle, id, 0, "text", flags))
			}
			must(t, s.writeBy(0, id, 0, "text", unix.O_SYNC)) // the kernel sends FSYNC
			must(t, s.writtenBack(handle, id, 0, "text", unix.O_SYNC))
		}) {
			if strings.Contains(op.Call, "sync") {
				made = append(made, op.Call)
			}
		}
		if !slices.Equal(made, c.want) {
			t.Errorf("%s: %v, want %v", c.name, made, c.want)
		}
		for _, call := range c.want {
			flags := map[string]uint32{"fdatasync": unix.O_DSYNC, "fsync": unix.O_SYNC}[call]
			sys.SetFault(func(op sys.Op) error {
				if op.Call == call {
					return unix.EIO
				}
				return nil
			})
			want(t, call+" fails", s.writeBy(handle, id, 0, "text", flags), unix.EIO)
			sys.SetFault(nil)
		}
	}
}

// dirtyPage is a kernel with a dirty page of a mapping. It writes the page back when a notification
// invalidates it.
type dirtyPage struct {
	server
	writeBack func()
}

func (k *dirtyPage) InodeNotify(uint64, int64, int64) fuse.Status {
	k.writeBack()
	return fuse.OK
}

// A page that came in before the data of a direct write has the old bytes of its range, and what a
// mapping has written beside it. Of its writeback only the latter is stored.
func TestPagesBesideADirectWrite(t *testing.T) {
	s := newSite(t, "", "")
	id, handle := s.newDirect("f", unix.O_WRONLY)
	must(t, s.writeBy(handle, id, 0, "................", 0))
	back := 0
	s.o.kernel.server = &dirtyPage{s.o.kernel.server, func() {
		back++
		must(t, s.writtenBack(0, id, 0, "m..............m", 0))
	}}
	sys.SetFault(func(op sys.Op) error {
		if op.Call == "pwrite64" && back == 0 {
			in := &fuse.ReadIn{InHeader: s.header(id), Size: 4096}
			if _, status := s.o.Read(nil, in, make([]byte, 4096)); status != fuse.OK {
				t.Error(status)
			}
		}
		return nil
	})
	must(t, s.writeBy(handle, id, 4, "text", 0))
	sys.SetFault(nil)
	if got := readText(t, s, id); back != 1 || got != "m...text.......m" {
		t.Errorf("written back %d times, and the file is %q", back, got)
	}
	must(t, s.writtenBack(0, id, 4, "late", 0))
	if got := readText(t, s, id); got != "m...late.......m" {
		t.Errorf("after the write a page is not stored: %q", got)
	}
}

// readText is what a READ shows of a small file.
func readText(t *testing.T, s *site, id uint64) string {
	t.Helper()
	buf := make([]byte, 4096)
	n, status := s.o.ReadData(&fuse.ReadIn{InHeader: s.header(id), Size: uint32(len(buf))}, buf)
	must(t, errorOf(status))
	return string(buf[:n])
}
