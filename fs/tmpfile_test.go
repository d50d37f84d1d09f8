package fs

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// tmpfile makes a file without a name in a directory.
func (k *kernel) tmpfile(dir string, mode uint32) (id uint64, err error) {
	err = k.onNode(dir, func(parent uint64) error {
		var out fuse.CreateOut
		in := fuse.CreateIn{InHeader: k.header(parent), Mode: unix.S_IFREG | mode, Flags: unix.O_RDWR}
		err := k.made(&out.EntryOut, k.o.Tmpfile(nil, &in, &out))
		id = out.NodeId
		return err
	})()
	return id, err
}

// linkNode gives a node a name.
func (k *kernel) linkNode(id uint64, p string) request {
	return k.onName(p, func(parent uint64, name string) error {
		var out fuse.EntryOut
		return k.made(&out, k.o.Link(nil, &fuse.LinkIn{InHeader: k.header(parent), Oldnodeid: id}, name, &out))
	})
}

// saved makes a file without a name, writes it and gives it a name, as programs do that save files.
func saved(s *site, dir, p string) request {
	return func() error {
		id, err := s.tmpfile(dir, 0o640)
		if err == nil {
			err = s.writeNode(id, 0, "text")
		}
		if err == nil {
			err = s.linkNode(id, p)()
		}
		return err
	}
}

// tmpfileScenarios are scenarios of the fault loop.
var tmpfileScenarios = []scenario{
	{
		name: "an O_TMPFILE file is saved in a lower directory", lower: "file d/old \"old\"",
		send:   func(s *site) request { return saved(s, "d", "d/new") },
		change: "+ file d/new 0640 \"text\"",
	},
	{
		name: "an O_TMPFILE file is saved over a whiteout", upper: "dir d\nwhite d/new", lower: "file d/new \"old\"", formats: true,
		send:   func(s *site) request { return saved(s, "d", "d/new") },
		change: "+ file d/new 0640 \"text\"",
	},
}

// A file without a name leaves nothing behind: no node, no descriptor, nothing on disk.
func TestTmpfileIsForgotten(t *testing.T) {
	s := newSite(t, "dir d", "file d/f")
	_, err := s.walk("d")
	must(t, err)
	nodes, fds := s.o.nodes.Len(), openFDs(t)
	id, err := s.tmpfile("d", 0o600)
	must(t, err)
	must(t, s.writeNode(id, 0, "text"))
	a, err := s.getattr(id)
	must(t, err)
	if a.Nlink != 0 || a.Size != 4 {
		t.Errorf("it has %d links and %d bytes", a.Nlink, a.Size)
	}
	s.forget(func(other uint64) bool { return other == id })
	if now := s.o.nodes.Len(); now != nodes {
		t.Errorf("%d nodes, %d before", now, nodes)
	}
	if now := openFDs(t); now > fds {
		t.Errorf("%d descriptors are left open", now-fds)
	}
	left, err := os.ReadDir(filepath.Join(s.cfg.Upper, "d"))
	if len(left) > 0 || err != nil {
		t.Errorf("%v is left, %v", left, err)
	}
	s.wantEmptyWork("forgotten")
}

// It gets a name once; an object whose last name has gone gets none.
func TestTmpfileIsLinkedOnce(t *testing.T) {
	s := newSite(t, "file gone \"gone\"", "")
	gone, err := s.walk("gone")
	must(t, err)
	s.do(s.unlink("gone"))
	want(t, "a removed file", s.linkNode(gone, "back")(), unix.ENOENT)
	id, err := s.tmpfile("", 0o600)
	must(t, err)
	s.do(s.linkNode(id, "a"))
	s.do(s.link("a", "b"))
	s.do(s.unlink("a"))
	s.do(s.unlink("b"))
	want(t, "a file without a name any more", s.linkNode(id, "c")(), unix.ENOENT)
	s.wantView("in the end", "")
}

// If the upper's file system has no O_TMPFILE files, TMPFILE returns an error other than ENOSYS:
// after ENOSYS the kernel would send no further TMPFILE.
func TestNoTmpfiles(t *testing.T) {
	s := newSite(t, "dir d", "")
	_, err := s.walk("d")
	must(t, err)
	sys.SetFault(func(op sys.Op) error {
		if op.Call == "openat" && op.Name == "." {
			return unix.EOPNOTSUPP
		}
		return nil
	})
	_, err = s.tmpfile("d", 0o600)
	sys.SetFault(nil)
	want(t, "O_TMPFILE", err, unix.EOPNOTSUPP)
}

// A SYNCFS, if a kernel sends it, syncs the upper's file system, unless fsync is switched off.
func TestSyncFS(t *testing.T) {
	s := newSite(t, "file f", "")
	asked := func() error {
		sys.SetFault(func(op sys.Op) error {
			if op.Call == "syncfs" {
				return unix.EIO
			}
			return nil
		})
		defer sys.SetFault(nil)
		return errorOf(s.o.SyncFS())
	}
	err := asked()
	want(t, "syncfs", err, unix.EIO)
	s.o.cfg.NoFsync = true
	err = asked()
	want(t, "syncfs with fsync=0", err, nil)
}
