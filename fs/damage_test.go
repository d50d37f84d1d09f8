package fs

import (
	"fmt"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/fs/conn/wire"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// Each reason has at most one line a second, with the number of failures that were not logged.
func TestDamageLog(t *testing.T) {
	var l damageLog
	start := time.Unix(1000, 0)
	for _, c := range []struct {
		after  time.Duration
		reason string
		more   int
		due    bool
	}{
		{0, "a", 0, true},
		{0, "a", 0, false},
		{0, "b", 0, true},
		{999 * time.Millisecond, "a", 0, false},
		{1000 * time.Millisecond, "a", 2, true},
		{1001 * time.Millisecond, "a", 0, false},
		{5 * time.Second, "a", 1, true},
		{7 * time.Second, "a", 0, true},
	} {
		if more, due := l.due(c.reason, start.Add(c.after)); more != c.more || due != c.due {
			t.Errorf("%s after %v: %d, %v; want %d, %v", c.reason, c.after, more, due, c.more, c.due)
		}
	}
	looks := 0
	for i := range 10 * maxExamined {
		if l.mayExamine(start.Add(time.Duration(i) * time.Millisecond)) {
			looks++
		}
	}
	if looks != maxExamined {
		t.Errorf("%d failures of one second were looked into, want %d", looks, maxExamined)
	}
	if !l.mayExamine(start.Add(damageInterval)) {
		t.Error("none in the next second")
	}
}

// newLoggedSite is newSite, with what it logs from then on.
func newLoggedSite(t *testing.T, upper string, lowers ...string) (*site, *observer.ObservedLogs) {
	t.Helper()
	core, lines := observer.New(zap.InfoLevel)
	cfg := newFolders(t, upper, lowers...)
	cfg.Log = zap.New(core)
	s := openSite(t, cfg)
	lines.TakeAll()
	return s, lines
}

// failing makes the calls on one name fail while f runs.
func failing(call, name string, errno unix.Errno, f func()) {
	sys.SetFault(func(op sys.Op) error {
		if op.Call == call && op.Name == name {
			return errno
		}
		return nil
	})
	defer sys.SetFault(nil)
	f()
}

// A request that fails because a layer is damaged is one line with layer, path and reason, and no
// more than one a second for each reason.
func TestDamagedLayerIsLogged(t *testing.T) {
	s, lines := newLoggedSite(t, "", "dir d\nfile d/sick x\nfile d/other x\nfile d/good x")
	w := s.newWorker()
	dir, err := s.walk("d")
	must(t, err)
	lookup := func(name string, want unix.Errno) {
		t.Helper()
		if status := w.serve(message(wire.OpLookup, s.header(dir), name+"\x00")); status != fuse.Status(want) {
			t.Errorf("%s: %v, want %v", name, status, want)
		}
	}
	damaged := func(what string, logged int, name string, errno unix.Errno) {
		t.Helper()
		failing("fstatat", name, errno, func() { lookup(name, errno) })
		got := lines.TakeAll()
		if len(got) != logged {
			t.Fatalf("%s: %d lines, want %d: %v", what, len(got), logged, got)
		}
		if logged == 0 {
			return
		}
		fields := got[0].ContextMap()
		if got[0].Level != zap.WarnLevel || fields["layer"] != s.cfg.Lowers[0] || fields["path"] != "d/"+name ||
			fields["reason"] != errno.Error() || fields["request"] != "LOOKUP" {
			t.Errorf("%s: %v %v", what, got[0].Entry, fields)
		}
	}
	damaged("EIO", 1, "sick", unix.EIO)
	damaged("the same reason", 0, "other", unix.EIO)
	damaged("another reason", 1, "other", unix.EUCLEAN)
	failing("fstatat", "good", unix.EACCES, func() { lookup("good", unix.EACCES) })
	lookup("good", 0)
	if got := lines.TakeAll(); len(got) != 0 {
		t.Errorf("lines without damage: %v", got)
	}
}

// Errors of callers are not logged.
func TestErrorsOfCallersAreNotLogged(t *testing.T) {
	s, lines := newLoggedSite(t, "dir d\nfile d/f x", "dir d\nfile d/low x")
	w := s.newWorker()
	dir, err := s.walk("d")
	must(t, err)
	file, err := s.walk("d/f")
	must(t, err)
	root := s.header(fuse.FUSE_ROOT_ID)
	for what, c := range map[string]struct {
		msg  []byte
		want unix.Errno
	}{
		"no such file":     {message(wire.OpUnlink, s.header(dir), "none\x00"), unix.ENOENT},
		"not empty":        {message(wire.OpRmdir, root, "d\x00"), unix.ENOTEMPTY},
		"exists":           {message(wire.OpMkdir, fuse.MkdirIn{InHeader: root, Mode: 0o755}, "d\x00"), unix.EEXIST},
		"a whiteout":       {message(wire.OpMknod, fuse.MknodIn{InHeader: root, Mode: unix.S_IFCHR}, "w\x00"), unix.EPERM},
		"an unknown inode": {message(wire.OpGetattr, fuse.GetAttrIn{InHeader: s.header(1 << 40)}, ""), unix.ESTALE},
		"no such attribute": {message(wire.OpGetxattr, fuse.GetXAttrIn{InHeader: s.header(file), Size: 64}, "user.none\x00"),
			unix.ENODATA},
	} {
		if status := w.serve(c.msg); status != fuse.Status(c.want) {
			t.Errorf("%s: %v, want %v", what, status, c.want)
		}
	}
	if got := lines.TakeAll(); len(got) != 0 {
		t.Errorf("lines: %v", got)
	}
}

// Only errors that a caller cannot cause are examined.
func TestWhatMayBeDamage(t *testing.T) {
	for _, c := range []struct {
		op    wire.Opcode
		errno unix.Errno
		want  bool
	}{
		{wire.OpWrite, unix.EIO, true}, {wire.OpUnlink, unix.EUCLEAN, true}, {wire.OpGetxattr, unix.EBADMSG, true},
		{wire.OpLookup, unix.EPERM, true}, {wire.OpReaddir, unix.EINVAL, true}, {wire.OpRead, unix.ELOOP, true},
		{wire.OpGetattr, unix.EINVAL, true},
		{wire.OpLookup, unix.ENOENT, false}, {wire.OpRead, unix.EACCES, false}, {wire.OpSetattr, unix.EPERM, false},
		{wire.OpRename2, unix.EXDEV, false}, {wire.OpMkdir, unix.EINVAL, false}, {wire.OpRead, unix.ESTALE, false},
	} {
		if got := mayBeDamage(c.op, c.errno); got != c.want {
			t.Errorf("%v with %v: %v, want %v", c.op, c.errno, got, c.want)
		}
	}
}

func TestFileSystemNames(t *testing.T) {
	for magic, want := range map[uint32]string{0xef53: "ext4", 0x65735546: "fuse", 0x12345678: "file system 0x12345678"} {
		if got := fileSystemName(magic); got != want {
			t.Error(fmt.Sprintf("%#x", magic), got, want)
		}
	}
}
