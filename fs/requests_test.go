package fs

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/sys"
	"github.com/fuse-overlay/fuse-overlay/internal/testkit"
)

// What is refused, and by which error. Nothing of it changes anything.
func TestRefusals(t *testing.T) {
	s := newSite(t, `
		file up/f "text"
		dir empty
		dir full/sub
		white gone
		dir half
		white half/a
	`, `
		file low/f
		dir lowempty
		file gone
		file half/a
		file half/b
		file lowf
	`)
	long := strings.Repeat("n", 256)
	before := s.view()
	for _, c := range []struct {
		what string
		send request
		want error
	}{
		{"mknod of what is there", s.mknod("lowf", unix.S_IFREG, 0), unix.EEXIST},
		{"mknod of a whiteout", s.mknod("new", unix.S_IFCHR, 0), unix.EPERM},
		{"mknod of a marker", s.mknod(".wh.new", unix.S_IFREG, 0), unix.EPERM},
		{"mkdir of a marker", s.mkdir(".wh..wh..opq", 0o755), unix.EPERM},
		{"mkdir of what is there", s.mkdir("up", 0o755), unix.EEXIST},
		{"mknod of a long name", s.onNode("", func(id uint64) error {
			in := fuse.MknodIn{InHeader: s.header(id), Mode: unix.S_IFREG}
			return errorOf(s.o.Mknod(nil, &in, long, &fuse.EntryOut{}))
		}), unix.ENAMETOOLONG},
		{"mknod in a file", s.onNode("lowf", func(id uint64) error {
			in := fuse.MknodIn{InHeader: s.header(id), Mode: unix.S_IFREG}
			return errorOf(s.o.Mknod(nil, &in, "f", &fuse.EntryOut{}))
		}), unix.ENOTDIR},
		{"link to what is there", s.link("lowf", "up/f"), unix.EEXIST},
		{"unlink of a directory", s.unlink("empty"), unix.EISDIR},
		{"unlink of nothing", s.unlink("none"), unix.ENOENT},
		{"unlink of a whiteout", s.unlink("gone"), unix.ENOENT},
		{"unlink of a marker", s.unlink(".wh.lowf"), unix.ENOENT},
		{"rmdir of a file", s.rmdir("lowf"), unix.ENOTDIR},
		{"rmdir of an upper directory", s.rmdir("full"), unix.ENOTEMPTY},
		{"rmdir of a lower directory", s.rmdir("low"), unix.ENOTEMPTY},
		{"rmdir of a merged directory", s.rmdir("half"), unix.ENOTEMPTY},
		{"rename of nothing", s.rename("none", "new", 0), unix.ENOENT},
		{"rename to a marker", s.rename("up/f", ".wh.f", 0), unix.EPERM},
		{"rename to a long name", s.rename("up/f", long, 0), unix.ENAMETOOLONG},
		{"rename of a lower directory", s.rename("low", "new", 0), unix.EXDEV},
		{"rename of a merged directory", s.rename("half", "new", 0), unix.EXDEV},
		{"exchange with a lower directory", s.rename("up", "low", unix.RENAME_EXCHANGE), unix.EXDEV},
		{"exchange with nothing", s.rename("up", "none", unix.RENAME_EXCHANGE), unix.ENOENT},
		{"rename with NOREPLACE", s.rename("up/f", "lowf", unix.RENAME_NOREPLACE), unix.EEXIST},
		{"rename with WHITEOUT", s.rename("up/f", "new", unix.RENAME_WHITEOUT), unix.EINVAL},
		{"rename of a directory over a file", s.rename("empty", "lowf", 0), unix.ENOTDIR},
		{"rename of a file over a directory", s.rename("up/f", "empty", 0), unix.EISDIR},
		{"rename over a full directory", s.rename("empty", "full", 0), unix.ENOTEMPTY},
		{"rename over a lower directory", s.rename("empty", "low", 0), unix.ENOTEMPTY},
		{"getxattr of nothing", s.onNode("up/f", func(id uint64) error {
			h := s.header(id)
			_, st := s.o.GetXAttr(nil, &h, "user.none", nil)
			return errorOf(st)
		}), unix.ENODATA},
		{"removexattr of nothing", s.removexattr("lowf", "user.none"), unix.ENODATA},
		{"readlink of a file", s.onNode("lowf", func(id uint64) error {
			h := s.header(id)
			_, st := s.o.Readlink(nil, &h)
			return errorOf(st)
		}), unix.EINVAL},
		{"read of a directory", s.onNode("low", func(id uint64) error { _, err := s.readNode(id, 0, 1); return err }), unix.EINVAL},
		{"list of a file", s.onNode("lowf", func(id uint64) error { _, err := s.readdir(id, 0, 4096); return err }), unix.ENOTDIR},
		{"a node that nobody knows", func() error { _, err := s.getattr(4711); return err }, unix.ESTALE},
		{"an unknown ioctl", s.onNode("up/f", func(id uint64) error {
			return errorOf(s.o.Ioctl(nil, &fuse.IoctlIn{InHeader: s.header(id), Cmd: 1}, nil, nil, nil))
		}), unix.ENOTTY},
	} {
		want(t, c.what, c.send(), c.want)
	}
	if d := testkit.Diff(before, s.view()); d != "" {
		t.Errorf("refusals change:\n%s", d)
	}
	s.audit("after refusals")
	s.wantEmptyWork("after refusals")
}

// A refusal of what the upper could not do is not paid for by a copy-up.
func TestRefusalsCopyNothingUp(t *testing.T) {
	s := newSite(t, "file f", "file low/f\ndir low/d\nfile low/d/f")
	for what, send := range map[string]request{
		"rmdir":     s.rmdir("low/d"),
		"unlink":    s.unlink("low/none"),
		"noreplace": s.rename("f", "low/f", unix.RENAME_NOREPLACE),
		"xattr":     s.removexattr("low/f", "user.none"),
	} {
		if send() == nil {
			t.Errorf("%s succeeds", what)
		}
	}
	testkit.Want(t, "the upper", s.cfg.Upper, "file f")
}

// Without an upper everything can be read and nothing changed.
func TestReadOnly(t *testing.T) {
	cfg := newFolders(t, "", "file d/f \"text\"\nwhite d/g", "file d/g\nfile e")
	cfg.Upper, cfg.Work = "", ""
	s := openSite(t, cfg)
	s.wantView("two lowers", "file d/f \"text\"\nfile e")
	s.audit("read only")
	for what, send := range map[string]request{
		"mknod": s.mknod("new", unix.S_IFREG, 0), "write": s.write("d/f", 0, "x"), "truncate": s.truncate("d/f", 0),
		"chmod": s.chmod("d", 0o700), "unlink": s.unlink("d/f"), "rename": s.rename("e", "x", 0), "link": s.link("e", "x"),
		"setxattr": s.setxattr("e", "user.x", "y"),
	} {
		want(t, what, send(), unix.EROFS)
	}
	var st fuse.StatfsOut
	want(t, "statfs", errorOf(s.o.StatFs(nil, &fuse.InHeader{}, &st)), nil)
	if st.NameLen != 255 || st.Bsize == 0 {
		t.Errorf("statfs: %+v", st)
	}
}

// The marks of this overlay are not shown and not set; those of an overlay on top of it are kept
// under another name.
func TestPrivateAttributes(t *testing.T) {
	s := newSite(t, "opaque d\nxattr d user.overlay.origin x\nxattr d user.note y", "file d/old\nfile f\nxattr f trusted.overlay.overlay.opaque y")
	s.wantView("at first", "dir d\nxattr d user.note y\nfile f\nxattr f trusted.overlay.opaque y")
	s.do(s.setxattr("f", "trusted.overlay.redirect", "/there"))
	s.wantView("set", "dir d\nxattr d user.note y\nfile f\nxattr f trusted.overlay.opaque y\nxattr f trusted.overlay.redirect /there")
	testkit.Want(t, "the upper", filepath.Join(s.cfg.Upper), "opaque d\nxattr d user.overlay.origin x\nxattr d user.note y\nfile f\n"+
		"xattr f trusted.overlay.overlay.opaque y\nxattr f trusted.overlay.overlay.redirect /there")
	if err := s.setxattr("f", "user.fuseoverlayfs.opaque", "y")(); err == nil {
		t.Error("a mark could be set")
	}
	s.do(s.removexattr("f", "trusted.overlay.opaque"))
	h := s.header(1)
	if n, st := s.o.ListXAttr(nil, &h, nil); st != fuse.OK || n != 0 {
		t.Errorf("the root's attributes take %d bytes, %v", n, st)
	}
}

// ENOSYS keeps the kernel from sending such requests. It returns EOPNOTSUPP by itself.
func TestWithoutAttributes(t *testing.T) {
	cfg := newFolders(t, "", "file f\nxattr f user.note x")
	cfg.NoXattrs = true
	s := openSite(t, cfg)
	id, err := s.walk("f")
	must(t, err)
	h := s.header(id)
	_, get := s.o.GetXAttr(nil, &h, "user.note", nil)
	_, list := s.o.ListXAttr(nil, &h, nil)
	want(t, "get", errorOf(get), unix.ENOSYS)
	want(t, "list", errorOf(list), unix.ENOSYS)
	want(t, "set", s.setxattr("f", "user.x", "")(), unix.EOPNOTSUPP)
}

// Two names of an upper object are one node, whichever was looked up first; a lower's are broken
// apart by a copy-up.
func TestHardLinks(t *testing.T) {
	s := newSite(t, "file a \"up\"\nlink d/b a", "file x \"low\"\nlink d/y x")
	same := func(p, q string) bool {
		a, err := s.walk(p)
		must(t, err)
		b, err := s.walk(q)
		must(t, err)
		return a == b
	}
	if !same("a", "d/b") {
		t.Error("two nodes of one object")
	}
	s.do(s.write("a", 2, "per"))
	if text, err := s.read("d/b"); err != nil || text != "upper" {
		t.Errorf("the other name reads %q, %v", text, err)
	}
	s.do(s.write("x", 3, "er"))
	text, err := s.read("d/y")
	if err != nil || text != "low" {
		t.Errorf("the name that was not written reads %q, %v", text, err)
	}
	s.do(s.link("x", "z"))
	if !same("x", "z") || same("x", "d/y") {
		t.Error("links of a copied-up file")
	}
	s.do(s.unlink("x"))
	s.do(s.rename("z", "d/z", 0))
	s.do(s.rename("a", "d/b", 0)) // two names of one object: nothing to do
	s.wantView("in the end", "file a \"upper\"\nlink d/b a\nfile d/y \"low\"\nfile d/z \"lower\"")
	s.audit("in the end")
}

// The number of an object does not change by a copy-up, by a rename, nor by being forgotten.
func TestInodeNumbersStay(t *testing.T) {
	s := newSite(t, "file up/f", "file low/f\nsymlink l x\ndir low/d", "dir low/d")
	number := func(p string) uint64 {
		id, err := s.walk(p)
		must(t, err)
		a, err := s.getattr(id)
		must(t, err)
		return a.Ino
	}
	before := map[string]uint64{}
	for _, p := range []string{"up", "up/f", "low", "low/f", "low/d", "l", ""} {
		before[p] = number(p)
	}
	for p := range before {
		s.do(s.chown(p, 7, 7))
	}
	check := func(what string) {
		t.Helper()
		for p, ino := range before {
			if now := number(p); now != ino {
				t.Errorf("%s: %q had the number %d and has %d", what, p, ino, now)
			}
		}
	}
	check("copied up")
	s.forget(nil)
	check("forgotten")
	s.do(s.rename("low/f", "up/moved", 0))
	if number("up/moved") != before["low/f"] {
		t.Error("another number after a rename")
	}
}

// Suid and sgid go before new data comes: a write whose caller has no right to them fails with them
// where they cannot be taken away.
func TestSuidGoesBeforeTheWrite(t *testing.T) {
	s := newSite(t, "", "file f 6755 \"old\"\nfile g 2644 \"old\"")
	write := func(p string) request {
		return s.onNode(p, func(id uint64) error {
			in := fuse.WriteIn{InHeader: s.header(id), WriteFlags: fuse.WRITE_KILL_SUIDGID}
			_, st := s.o.Write(nil, &in, []byte("new"))
			return errorOf(st)
		})
	}
	s.do(s.chmod("f", 0o6755)) // copied up
	r := write("f")
	sys.SetFault(func(op sys.Op) error {
		if op.Call == "fchmodat2" {
			return unix.EIO
		}
		return nil
	})
	err := r()
	sys.SetFault(nil)
	want(t, "the write", err, unix.EIO)
	s.wantView("failed", "file f 6755 \"old\"\nfile g 2644 \"old\"")
	s.do(write("f"))
	s.do(write("g")) // not executable by its group: a mark of mandatory locking, not a right
	s.wantView("written", "file f 0755 \"new\"\nfile g 2644 \"new\"")
}

// A listing in small parts is the same as one in large parts, with and without attributes.
func TestListingInParts(t *testing.T) {
	var table strings.Builder
	for i := range 300 {
		table.WriteString("file d/" + strings.Repeat("n", 1+i%50) + string(rune('a'+i/50)) + "\n")
	}
	s := newSite(t, "", table.String())
	id, err := s.walk("d")
	must(t, err)
	all, err := s.list(id, 1<<20)
	must(t, err)
	if len(all) != 302 || all[0].name != "." || all[1].name != ".." {
		t.Fatalf("%d entries, %q first", len(all), all[0].name)
	}
	for _, size := range []int{256, 1000, 4096} {
		parts, err := s.list(id, size)
		must(t, err)
		if !slices.EqualFunc(parts, all, func(a, b dirent) bool { return a.name == b.name && a.ino == b.ino && a.off == b.off }) {
			t.Errorf("in parts of %d bytes: %d entries", size, len(parts))
		}
	}
	s.forget(nil)
	id, err = s.walk("d")
	must(t, err)
	list := fuse.NewDirEntryList(make([]byte, 1<<16), 0)
	want(t, "readdir", errorOf(s.o.ReadDir(nil, &fuse.ReadIn{InHeader: s.header(id), Size: 1 << 16}, list)), nil)
	if n := s.o.nodes.Len(); n != 2 {
		t.Errorf("a listing without attributes leaves %d nodes", n)
	}
}
