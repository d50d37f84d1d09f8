package sys

import (
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestEntries(t *testing.T) {
	d, path := layer(t)
	f, err := d.CreateFile("file", 0o4751)
	must(t, err)
	defer f.Close()
	_, err = d.CreateFile("file", 0o600)
	want(t, "create again", err, unix.EEXIST)
	must(t, d.Symlink("file", "link"))
	_, err = d.CreateFile("link", 0o600)
	want(t, "create over a link", err, unix.EEXIST)
	must(t, d.Mkdir("dir", 0o1777))
	must(t, d.Mknod("socket", unix.S_IFSOCK|0o700, 0))
	if st := statOf(t, d.At("file")); st.Mode != unix.S_IFREG|0o4751 {
		t.Errorf("file mode %o", st.Mode)
	}
	if st := statOf(t, d.At("dir")); st.Mode != unix.S_IFDIR|0o1777 {
		t.Errorf("directory mode %o", st.Mode)
	}
	sub, err := d.OpenDir("dir")
	must(t, err)
	defer sub.Close()
	must(t, sub.Link(d.At("file"), "second"))
	must(t, sub.Link(f.Ref(), "third"))
	must(t, sub.Link(d.At("link"), "same link"))
	if st := statOf(t, f.Ref()); st.Nlink != 3 {
		t.Errorf("%d names, want 3", st.Nlink)
	}
	if st := statOf(t, sub.At("same link")); st.Mode&unix.S_IFMT != unix.S_IFLNK {
		t.Error("link followed a symbolic link")
	}
	want(t, "rename over", sub.Rename("second", d, "link", unix.RENAME_NOREPLACE), unix.EEXIST)
	want(t, "exchange", sub.Rename("second", d, "link", unix.RENAME_EXCHANGE), nil)
	want(t, "whiteout", d.Rename("socket", sub, "socket", unix.RENAME_WHITEOUT), nil)
	if st := statOf(t, d.At("socket")); !isWhiteoutDevice(&st) {
		t.Errorf("left behind: %o", st.Mode)
	}
	if st := statOf(t, sub.At("socket")); isWhiteoutDevice(&st) {
		t.Error("a socket is no whiteout")
	}
	want(t, "rename", sub.Rename("third", sub, "fourth", 0), nil)
	want(t, "unlink a directory", d.Unlink("dir"), unix.EISDIR)
	want(t, "rmdir a file", d.Rmdir("file"), unix.ENOTDIR)
	want(t, "rmdir", d.Rmdir("dir"), unix.ENOTEMPTY)
	for _, name := range []string{"second", "same link", "socket", "fourth"} {
		must(t, sub.Unlink(name))
	}
	must(t, d.Rmdir("dir"))
	must(t, d.Sync())
	_ = path
}

// A large directory is listed completely, each entry once with its type and number, and so again.
func TestList(t *testing.T) {
	d, path := layer(t)
	const files = 10_000
	write(t, filepath.Join(path, "first"), "")
	for i := range files - 1 { // names of one file, because files take seconds to make
		must(t, d.Link(d.At("first"), fmt.Sprintf("a rather long name of a file %d", i)))
	}
	must(t, d.Mkdir("dir", 0o755))
	must(t, d.Symlink("x", "link"))
	write(t, filepath.Join(path, "..dots"), "")
	for range 4 {
		seen := map[string]Dirent{}
		if err := d.List(func(e Dirent) error { seen[e.Name] = e; return nil }); err != nil {
			t.Error(err)
		}
		if len(seen) != files+3 {
			t.Errorf("%d entries, want %d", len(seen), files+3)
		}
		if seen["dir"].Type != unix.DT_DIR || seen["link"].Type != unix.DT_LNK || seen["..dots"].Type != unix.DT_REG {
			t.Errorf("types: %v %v %v", seen["dir"], seen["link"], seen["..dots"])
		}
		var st Stat
		if err := d.At("dir").Stat(&st); err != nil || st.Ino != seen["dir"].Ino {
			t.Errorf("number %d, want %d, %v", seen["dir"].Ino, st.Ino, err)
		}
	}

	stop, n := errors.New("enough"), 0
	err := d.List(func(Dirent) error {
		if n++; n == 10 {
			return stop
		}
		return nil
	})
	if err != stop || n != 10 {
		t.Errorf("stopped after %d with %v", n, err)
	}
	calls := 0
	SetFault(func(op Op) error { calls++; return nil })
	must(t, d.List(func(Dirent) error { return nil }))
	SetFault(nil)
	if calls > 20 {
		t.Errorf("%d calls for %d entries", calls, files)
	}
}

// A listing of a broken file system is an error, not a crash.
func TestParseDirents(t *testing.T) {
	record := func(size int, name string) []byte {
		b := make([]byte, max(size, 19+len(name)))
		binary.NativeEndian.PutUint16(b[16:], uint16(size))
		copy(b[19:], name)
		return b
	}
	for _, c := range []struct {
		b    []byte
		name string
		err  error
	}{
		{record(24, "abc\x00"), "abc", nil},
		{record(22, "abc"), "abc", nil},
		{record(24, ".\x00"), "", nil},
		{record(24, "..\x00"), "", nil},
		{record(18, ""), "", unix.EIO},
		{record(0, "abc"), "", unix.EIO},
		{record(24, "abc\x00")[:23], "", unix.EIO},
		{make([]byte, 5), "", nil},
	} {
		name := ""
		_, err := parseDirents(c.b, func(e Dirent) error { name = e.Name; return nil })
		if name != c.name || err != c.err {
			t.Errorf("%x: %q, %v; want %q, %v", c.b, name, err, c.name, c.err)
		}
	}
}

// Every call passes the seam first, and does nothing if that returns an error.
func TestFaultSeam(t *testing.T) {
	d, path := layer(t)
	write(t, filepath.Join(path, "file"), "data")
	must(t, d.Mkdir("dir", 0o755))
	f, err := d.At("file").OpenFile(unix.O_RDWR)
	must(t, err)
	defer f.Close()
	r, now := d.At("file"), unix.Timespec{}
	buf := make([]byte, 8)
	second := func(_ any, err error) error { return err }
	calls := map[string]func() error{
		"Stat": func() error { return r.Stat(&Stat{}) }, "Statfs": func() error { return r.Statfs(&unix.Statfs_t{}) },
		"Chmod": func() error { return r.Chmod(0) }, "Chown": func() error { return r.Chown(9, 9) },
		"Utimes": func() error { return r.Utimes(now, now) }, "Readlink": func() error { return second(r.Readlink()) },
		"GetXattr": func() error { return second(r.GetXattr("user.a")) }, "ListXattr": func() error { return second(r.ListXattr()) },
		"SetXattr":    func() error { return r.SetXattr("user.a", nil, 0) },
		"RemoveXattr": func() error { return r.RemoveXattr("user.a") },
		"Open":        func() error { return second(r.Open()) }, "OpenFile": func() error { return second(r.OpenFile(0)) },
		"OpenDir":       func() error { return second(d.OpenDir("dir")) },
		"CreateFile":    func() error { return second(d.CreateFile("new", 0)) },
		"CreateTmpfile": func() error { return second(d.CreateTmpfile(0)) }, "WriteBack": f.WriteBack,
		"StartWriteBack": func() error { return f.StartWriteBack(0, 1) },
		"FSInfo":         func() error { return second(d.FSInfo()) },
		"Mknod":          func() error { return d.Mknod("new", unix.S_IFREG, 0) }, "Mkdir": func() error { return d.Mkdir("new", 0) },
		"Symlink": func() error { return d.Symlink("x", "new") }, "Link": func() error { return d.Link(r, "new") },
		"Unlink": func() error { return d.Unlink("file") }, "Rmdir": func() error { return d.Rmdir("dir") },
		"Rename": func() error { return d.Rename("file", d, "new", 0) }, "Sync": d.Sync, "SyncFS": d.SyncFS, "Lock": d.Lock, "MarkRead": d.MarkRead,
		"List":  func() error { return d.List(func(Dirent) error { return nil }) },
		"Pread": func() error { return second(f.Pread(buf, 0)) }, "Pwrite": func() error { return second(f.Pwrite(buf, 0)) },
		"Truncate": func() error { return f.Truncate(0) }, "File.Sync": f.Sync, "Datasync": f.Datasync,
		"Fallocate": func() error { return f.Fallocate(0, 0, 100) }, "Seek": func() error { return second(f.Seek(0, 0)) },
		"Clone": func() error { return f.Clone(f) }, "CopyRange": func() error { return second(f.CopyRange(f, 0, 8, 1)) },
		"Flags":      func() error { return f.Flags(unix.FS_IOC_GETFLAGS, buf) },
		"Protection": func() error { return second(d.At("f").Protection()) }, "InodeFlags": func() error { return second(d.At("f").InodeFlags()) },
		"SetInodeFlags": func() error { return d.At("f").SetInodeFlags(0) },
		"OpenLower":     func() error { _, _, err := OpenLower(path); return err },
		"OpenUpper":     func() error { _, _, err := OpenUpper(path, path, 0); return err },
	}
	SetFault(func(Op) error { return unix.EUCLEAN })
	for name, f := range calls {
		want(t, name, f(), unix.EUCLEAN)
	}
	SetFault(func(op Op) error {
		if op.Call == "getdents64" {
			return unix.EUCLEAN
		}
		return nil
	})
	want(t, "getdents64", calls["List"](), unix.EUCLEAN)
	SetFault(nil)
	names := map[string]bool{}
	must(t, d.List(func(e Dirent) error { names[e.Name] = true; return nil }))
	if st := statOf(t, r); len(names) != 2 || st.Size != 4 || st.Mode != unix.S_IFREG|0o644 || st.Uid != 0 {
		t.Errorf("a failing call did something: %v, %d bytes, mode %o, owner %d", names, st.Size, st.Mode, st.Uid)
	}
}
