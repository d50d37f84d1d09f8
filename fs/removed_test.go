package fs

import (
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/sys"
	"github.com/fuse-overlay/fuse-overlay/internal/testkit"
)

// Where a file that is removed while it is open may lie.
var removedFiles = []struct{ name, upper, lower string }{
	{"upper", "file d/f \"text\"", ""},
	{"lower", "", "file d/f \"text\""},
	{"upper over lower", "file d/f \"text\"", "file d/f \"old\""},
}

// A removed file goes on working for a process that has it open, and no other process sees it.
func TestRemovedFileGoesOnWorking(t *testing.T) {
	for _, c := range removedFiles {
		t.Run(c.name, func(t *testing.T) {
			s := newSite(t, c.upper, c.lower)
			fds := openFDs(t)
			id, err := s.walk("d/f")
			must(t, err)
			before, err := s.getattr(id)
			must(t, err)
			s.do(s.unlink("d/f"))
			s.wantRemoved(id, before.Ino, "text")
			must(t, s.writeNode(id, 4, " and more"))
			s.wantRemoved(id, before.Ino, "text and more")
			s.o.handles.Clear() // to be opened anew
			must(t, s.writeNode(id, 0, "T"))
			s.wantRemoved(id, before.Ino, "Text and more")
			var out fuse.AttrOut
			in := fuse.SetAttrIn{SetAttrInCommon: fuse.SetAttrInCommon{InHeader: s.header(id), Size: 4, Mode: 0o600,
				Valid: fuse.FATTR_SIZE | fuse.FATTR_MODE}}
			must(t, errorOf(s.o.SetAttr(nil, &in, &out)))
			must(t, errorOf(s.o.SetXAttr(nil, &fuse.SetXAttrIn{InHeader: s.header(id)}, "user.note", []byte("v"))))
			s.wantRemoved(id, before.Ino, "Text")
			must(t, errorOf(s.o.Fsync(nil, &fuse.FsyncIn{InHeader: s.header(id)})))
			if o, err := s.kernel.describe(id); err != nil || o.Mode != unix.S_IFREG|0o600 || o.Xattrs["user.note"] != "v" {
				t.Errorf("it is %v, %v", o, err)
			}
			dir, err := s.walk("d")
			must(t, err)
			h := s.header(dir)
			in2 := fuse.LinkIn{InHeader: h, Oldnodeid: id}
			want(t, "a link of it", errorOf(s.o.Link(nil, &in2, "g", &fuse.EntryOut{})), unix.ENOENT)
			s.wantView("without it", "dir d")

			s.do(s.mknod("d/f", unix.S_IFREG|0o644, 0)) // the name has nothing to do with it any more
			must(t, s.writeNode(id, 0, "old "))
			s.wantView("its name used again", "file d/f")
			s.forget(nil)
			if n := openFDs(t); n != fds || s.o.nodes.Len() != 1 {
				t.Errorf("forgotten: %d descriptors more, %d nodes", n-fds, s.o.nodes.Len()-1)
			}
			s.remount()
			s.wantEmptyWork("removed")
		})
	}
}

func (s *site) wantRemoved(id, ino uint64, text string) {
	s.t.Helper()
	a, err := s.getattr(id)
	must(s.t, err)
	if a.Nlink != 0 || a.Ino != ino || a.Size != uint64(len(text)) {
		s.t.Errorf("it has %d links, number %d, size %d; want 0, %d, %d", a.Nlink, a.Ino, a.Size, ino, len(text))
	}
	if got, err := s.readNode(id, 0, 100); err != nil || got != text {
		s.t.Errorf("it reads %q, %v; want %q", got, err, text)
	}
}

// Objects of other kinds and directories that are removed while in use still answer requests.
func TestRemovedObjectsAnswerRequests(t *testing.T) {
	for _, tables := range [][2]string{
		{"dir d/e\nsymlink d/l to\nfifo d/p", "dir d"}, {"dir d", "dir d/e\nsymlink d/l to\nfifo d/p"},
	} {
		s := newSite(t, tables[0], tables[1])
		ids := map[string]uint64{}
		for _, name := range []string{"e", "l", "p"} {
			id, err := s.walk("d/" + name)
			must(t, err)
			ids[name] = id
		}
		s.do(s.rmdir("d/e"))
		s.do(s.unlink("d/l"))
		s.do(s.unlink("d/p"))
		for name, id := range ids {
			if a, err := s.getattr(id); err != nil || a.Nlink != 0 {
				t.Errorf("%s: %d links, %v", name, a.Nlink, err)
			}
		}
		h := s.header(ids["l"])
		if target, st := s.o.Readlink(nil, &h); st != fuse.OK || string(target) != "to" {
			t.Errorf("the symlink leads to %q, %v", target, st)
		}
		if entries, err := s.list(ids["e"], 4096); err != nil || len(entries) != 0 {
			t.Errorf("the directory lists %v, %v", entries, err)
		}
		in := fuse.MknodIn{InHeader: s.header(ids["e"]), Mode: unix.S_IFREG | 0o644}
		want(t, "a file in it", errorOf(s.o.Mknod(nil, &in, "f", &fuse.EntryOut{})), unix.ENOENT)
		if _, err := s.lookup(ids["e"], "f"); err != unix.ENOENT {
			t.Errorf("a name in it: %v", err)
		}
		want(t, "fsync of it", errorOf(s.o.FsyncDir(nil, &fuse.FsyncIn{InHeader: s.header(ids["e"])})), nil)
		s.wantView("without them", "dir d")
	}
}

// The first write to a lower file without a name fails at each of its system calls: the file stays
// as it was, nothing is left in the work directory, and the next write succeeds.
func TestEveryFaultOfWritingARemovedFile(t *testing.T) {
	for i := 0; ; i++ {
		s := newSite(t, "", "file f \"text\"")
		fds := openFDs(t)
		id, err := s.walk("f")
		must(t, err)
		s.do(s.unlink("f"))
		n := 0
		sys.SetFault(func(sys.Op) error {
			n++
			if n-1 == i {
				return unix.ENOSPC
			}
			return nil
		})
		err = s.writeNode(id, 4, "more")
		sys.SetFault(nil)
		if err != nil {
			want(t, "write", err, unix.ENOSPC)
			if got, err := s.readNode(id, 0, 100); err != nil || got != "text" {
				t.Errorf("call %d: it reads %q, %v", i, got, err)
			}
			must(t, s.writeNode(id, 4, "more"))
		}
		if got, err := s.readNode(id, 0, 100); err != nil || got != "textmore" {
			t.Errorf("call %d: it reads %q, %v", i, got, err)
		}
		s.forget(nil)
		if now := openFDs(t); now != fds {
			t.Errorf("call %d: %d descriptors are left open", i, now-fds)
		}
		s.remount()
		s.wantEmptyWork("removed")
		s.shut()
		if n <= i {
			return
		}
	}
}

// A request that has read the place of a removed lower file before its copy-up does not reach
// another object by it.
func TestPlaceOfARemovedFileStaysGood(t *testing.T) {
	s := newSite(t, "", "file f \"text\"")
	id, err := s.walk("f")
	must(t, err)
	s.do(s.unlink("f"))
	n, err := s.o.node(id)
	must(t, err)
	p := n.place()
	var before, after sys.Stat
	must(t, p.object.Ref().Stat(&before))
	must(t, s.writeNode(id, 0, "x"))
	if err := p.object.Ref().Stat(&after); err != nil || before.Ino != after.Ino {
		t.Errorf("the place leads to inode %d, %v; it was %d", after.Ino, err, before.Ino)
	}
}

// A removal that fails leaves no trace of the lower file in one that is copied up and removed
// afterwards.
func TestFailedRemovalThenCopyUpThenRemoval(t *testing.T) {
	s := newSite(t, "", "file f \"old\"")
	id, err := s.walk("f")
	must(t, err)
	unlink := s.unlink("f")
	sys.SetFault(func(op sys.Op) error {
		if op.Call == "mknodat" {
			return unix.ENOSPC
		}
		return nil
	})
	err = unlink()
	sys.SetFault(nil)
	want(t, "unlink", err, unix.ENOSPC)
	must(t, s.writeNode(id, 0, "new"))
	s.do(s.unlink("f"))
	s.o.handles.Clear()
	if got, err := s.readNode(id, 0, 100); err != nil || got != "new" {
		t.Errorf("it reads %q, %v", got, err)
	}
	must(t, s.writeNode(id, 3, "er"))
	testkit.Want(t, "the lower", s.cfg.Lowers[0], "file f \"old\"")
}
