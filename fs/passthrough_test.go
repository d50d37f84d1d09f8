package fs

import (
	"sync"
	"syscall"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/fs/conn"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// backings stands for the kernel: it keeps the backing files it got until they are unregistered.
type backings struct {
	mu     sync.Mutex // guards the rest
	last   int32
	open   map[int32]bool
	most   int // ever open at once
	errno  syscall.Errno
	closed int // that were not open
}

func (b *backings) RegisterBackingFd(*fuse.BackingMap) (int32, syscall.Errno) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.errno != 0 {
		return 0, b.errno
	}
	b.last++
	b.open[b.last] = true
	b.most = max(b.most, len(b.open))
	return b.last, 0
}

func (b *backings) UnregisterBackingFd(id int32) syscall.Errno {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.open[id] {
		b.closed++
		return syscall.ENOENT
	}
	delete(b.open, id)
	return 0
}

// passing makes an overlay answer as one mounted with passthrough.
func (s *site) passing() *backings {
	b := &backings{open: map[int32]bool{}}
	s.o.passthrough.kernel, s.o.policy.Passthrough, s.o.policy.DirectIOSafe = b, true, true
	return b
}

func (k *kernel) openNode(id uint64, flags uint32) (fuse.OpenOut, error) {
	var out fuse.OpenOut
	err := errorOf(k.o.Open(nil, &fuse.OpenIn{InHeader: k.header(id), Flags: flags}, &out))
	return out, err
}

func (k *kernel) release(id uint64) { k.o.Release(nil, &fuse.ReleaseIn{InHeader: k.header(id)}) }

func (k *kernel) create(p string, mode, flags uint32, out *fuse.CreateOut) request {
	return k.onName(p, func(parent uint64, name string) error {
		in := fuse.CreateIn{InHeader: k.header(parent), Mode: unix.S_IFREG | mode, Flags: flags}
		return k.made(&out.EntryOut, k.o.Create(nil, &in, name, out))
	})
}

// wantOpen opens a file and fails the test when that is answered with another backing; it returns
// the node.
func (s *site) wantOpen(p string, flags uint32, backing int32) uint64 {
	s.t.Helper()
	id, err := s.walk(p)
	must(s.t, err)
	out, err := s.openNode(id, flags)
	must(s.t, err)
	wantFlags := uint32(fuse.FOPEN_PASSTHROUGH)
	if backing == 0 {
		wantFlags = fuse.FOPEN_KEEP_CACHE
		if flags&unix.O_ACCMODE != unix.O_RDONLY {
			wantFlags |= fuse.FOPEN_DIRECT_IO
		}
	}
	if out.BackingID != backing || out.OpenFlags != wantFlags {
		s.t.Errorf("%s opened with backing %d and flags %#x, want %d and %#x", p, out.BackingID, out.OpenFlags, backing, wantFlags)
	}
	return id
}

// All opens of a file are of one kind, that of the first; the backing goes with the last.
func TestOpensAreOfOneKind(t *testing.T) {
	s := newSite(t, "file up \"text\"\nfile suid 4755 \"text\"", "file low \"text\"\nfile other \"text\"")
	b := s.passing()
	up := s.wantOpen("up", unix.O_RDONLY, 1)
	s.wantOpen("up", unix.O_RDWR, 1)
	s.release(up)
	s.wantOpen("up", unix.O_WRONLY|unix.O_TRUNC, 1)
	s.release(up)
	if len(b.open) != 1 {
		t.Errorf("%d backings open, want 1", len(b.open))
	}
	s.release(up)
	if len(b.open) != 0 {
		t.Error("the backing of a closed file is open")
	}
	s.wantOpen("up", unix.O_RDONLY, 2)
	s.release(up)

	low := s.wantOpen("low", unix.O_RDONLY, 0)
	s.wantOpen("low", unix.O_RDWR, 0) // copied up, but open through the cache
	s.release(low)
	s.wantOpen("low", unix.O_RDONLY, 0)
	s.release(low)
	s.release(low)
	s.wantOpen("low", unix.O_RDONLY, 3)
	s.release(low)
	other := s.wantOpen("other", unix.O_WRONLY, 4)
	s.release(other)

	suid := s.wantOpen("suid", unix.O_RDWR, 0)
	s.do(s.chmod("suid", 0o755))
	s.wantOpen("suid", unix.O_RDWR, 0)
	s.release(suid)
	s.release(suid)
	s.wantOpen("suid", unix.O_RDWR, 5)
	s.do(s.chmod("suid", 0o4755))
	s.wantOpen("suid", unix.O_RDWR, 5)
	s.release(suid)
	s.release(suid)
	s.wantNoneOpen(b)
}

// What OPEN with O_TRUNC cuts off is not copied up.
func TestOpenTruncates(t *testing.T) {
	s := newSite(t, "", "file low \"text of the lower\"")
	s.passing()
	id, err := s.walk("low")
	must(t, err)
	made := calls(func() {
		_, err := s.openNode(id, unix.O_WRONLY|unix.O_TRUNC)
		must(t, err)
	})
	for _, op := range made {
		if op.Call == "copy_file_range" || op.Call == "pwrite64" || op.Name == "FICLONE" {
			t.Errorf("data is copied: %v", op)
		}
	}
	s.release(id)
	s.wantView("after O_TRUNC", "file low")
}

func TestCreateOpens(t *testing.T) {
	s := newSite(t, "", "file there")
	b := s.passing()
	var out fuse.CreateOut
	s.do(s.create("new", 0o640, unix.O_WRONLY|unix.O_TRUNC, &out))
	if out.BackingID != 1 || out.OpenFlags != fuse.FOPEN_PASSTHROUGH || out.Attr.Mode != unix.S_IFREG|0o640 {
		t.Errorf("created: %+v", out)
	}
	s.release(out.NodeId)
	want(t, "create of what is there", s.create("there", 0o644, unix.O_RDWR, &out)(), unix.EEXIST)
	s.do(s.create("suid", 0o4755, unix.O_RDWR, &out))
	if out.BackingID != 0 {
		t.Error("a file with suid is passed through")
	}
	s.release(out.NodeId)
	if len(b.open)+b.closed > 0 {
		t.Errorf("left: %v; closed twice: %d", b.open, b.closed)
	}
	s.wantView("after creations", "file new 0640\nfile suid 4755\nfile there")
}

// A file that is open through the cache is written through it where direct I/O is not safe.
func TestNoDirectIOWhereItIsNotSafe(t *testing.T) {
	s := newSite(t, "", "file low")
	s.passing()
	s.o.policy.DirectIOSafe = false
	low := s.wantOpen("low", unix.O_RDONLY, 0)
	out := must1(s.openNode(low, unix.O_RDWR))
	if out.OpenFlags&(fuse.FOPEN_DIRECT_IO|fuse.FOPEN_PASSTHROUGH) != 0 || out.Fh&directHandle != 0 {
		t.Errorf("opened with flags %#x and handle %d", out.OpenFlags, out.Fh)
	}
	s.release(low)
	s.release(low)
}

// A file that the kernel does not take is opened through the cache; an open that fails leaves
// nothing.
func TestOpenWithoutBacking(t *testing.T) {
	s := newSite(t, "file up", "file low")
	b := s.passing()
	b.errno = syscall.ELOOP
	up := s.wantOpen("up", unix.O_RDWR, 0)
	s.release(up)
	b.errno = 0
	for _, failing := range []string{"BACKING_OPEN", "up"} { // the registration, and the open before it
		s.o.evict(must1(s.o.node(up)))
		sys.SetFault(func(op sys.Op) error {
			if op.Name == failing {
				return unix.EIO
			}
			return nil
		})
		out, err := s.openNode(up, unix.O_RDONLY)
		sys.SetFault(nil)
		must(t, err)
		if out.OpenFlags != fuse.FOPEN_KEEP_CACHE {
			t.Errorf("passed through, though %s fails", failing)
		}
		s.release(up)
	}
	id, err := s.walk("low")
	must(t, err)
	sys.SetFault(func(op sys.Op) error {
		if op.Call == "copy_file_range" || op.Call == "renameat2" {
			return unix.ENOSPC
		}
		return nil
	})
	_, err = s.openNode(id, unix.O_WRONLY)
	sys.SetFault(nil)
	want(t, "open for writing on a full disk", err, unix.ENOSPC)
	s.wantNoneOpen(b)
	s.release(id) // of what is not open: nothing happens
	_, err = s.openNode(4711, unix.O_RDONLY)
	want(t, "open of a node that nobody knows", err, unix.ESTALE)
}

func must1[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// The kernel may not keep what changes without its notice.
func TestAttributesOfPassedThroughFiles(t *testing.T) {
	s := newSite(t, "file a\nfile b", "dir d")
	s.passing()
	s.o.policy.Timeout = conn.Endless
	kept := func(id uint64) bool {
		var out fuse.AttrOut
		must(t, errorOf(s.o.GetAttr(nil, &fuse.GetAttrIn{InHeader: s.header(id)}, &out)))
		return out.AttrValid > 0
	}
	a := s.wantOpen("a", unix.O_WRONLY, 1)
	if !kept(a) {
		t.Error("attributes without suid need not be asked each time")
	}
	s.do(s.chmod("a", 0o4755))
	if kept(a) {
		t.Error("a write may clear suid")
	}
	s.release(a)
	if !kept(a) {
		t.Error("nobody writes any more")
	}
	b := s.wantOpen("b", unix.O_RDWR, 2)
	s.release(b)
	if kept(b) {
		t.Error("a mapping may go on after the close")
	}
}

// Whoever opens and closes at the same time: one backing for a file, and none in the end.
func TestOpensAtTheSameTime(t *testing.T) {
	s := newSite(t, "file up", "file low")
	b := s.passing()
	ids := []uint64{must1(s.walk("up")), must1(s.walk("low"))}
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := range 500 {
				id, flags := ids[(i+w)%2], uint32(unix.O_RDONLY)
				if i%7 == 0 {
					flags = unix.O_RDWR
				}
				if _, err := s.openNode(id, flags); err != nil {
					t.Error(err)
					return
				}
				s.release(id)
			}
		})
	}
	wg.Wait()
	s.wantNoneOpen(b)
}
