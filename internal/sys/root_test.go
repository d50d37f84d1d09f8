package sys

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// refusing makes the named call fail while f runs.
func refusing(call string, err error, f func()) {
	SetFault(func(op Op) error {
		if op.Call == call {
			return err
		}
		return nil
	})
	defer SetFault(nil)
	f()
}

// A lower cannot be written, by no call, and reading leaves no trace in it.
func TestLowerIsReadOnly(t *testing.T) {
	path := t.TempDir()
	write(t, filepath.Join(path, "file"), "data")
	write(t, filepath.Join(path, "other"), "data")
	must(t, os.Mkdir(filepath.Join(path, "dir"), 0o755))
	past := time.Unix(1000, 0)
	must(t, os.Chtimes(filepath.Join(path, "file"), past, past.Add(time.Hour))) // relatime would update this one
	d, cloned, err := OpenLower(path)
	must(t, err)
	defer d.Close()
	if !cloned {
		t.Fatal("not reached through a clone")
	}
	now := unix.Timespec{Sec: 1}
	file := d.At("file")
	object, err := file.Open()
	must(t, err)
	defer object.Close()
	reading, err := file.OpenFile(unix.O_RDONLY)
	must(t, err)
	defer reading.Close()
	dir, err := d.OpenDir("dir")
	must(t, err)
	defer dir.Close()
	calls := map[string]error{
		"Chmod": file.Chmod(0o600), "Chown": file.Chown(1, 1), "Utimes": file.Utimes(now, now),
		"SetXattr": file.SetXattr("user.x", nil, 0), "RemoveXattr": file.RemoveXattr("user.x"),
		"object Chmod": object.Ref().Chmod(0o600), "object Chown": object.Ref().Chown(1, 1),
		"object Utimes": object.Ref().Utimes(now, now), "object SetXattr": object.Ref().SetXattr("user.x", nil, 0),
		"open file SetXattr": reading.Ref().SetXattr("user.x", nil, 0), "open file Chmod": reading.Ref().Chmod(0o600),
		"Mkdir": d.Mkdir("new", 0o755), "Mknod": d.Mknod("new", unix.S_IFREG|0o600, 0), "Symlink": d.Symlink("x", "new"),
		"Link": d.Link(file, "new"), "Unlink": d.Unlink("file"), "Rmdir": d.Rmdir("dir"),
		"Rename": d.Rename("file", d, "other", 0), "Rename into": d.Rename("file", dir, "file", unix.RENAME_NOREPLACE),
	}
	_, calls["CreateFile"] = d.CreateFile("new", 0o600)
	_, calls["OpenFile"] = file.OpenFile(unix.O_RDWR)
	_, calls["object OpenFile"] = object.Ref().OpenFile(unix.O_RDWR)
	_, calls["file reopened"] = reading.Ref().OpenFile(unix.O_RDWR)
	for name, err := range calls {
		want(t, name, err, unix.EROFS)
	}
	buf := make([]byte, 4)
	_, err = reading.Pread(buf, 0)
	must(t, err)
	must(t, d.List(func(Dirent) error { return nil }))
	if st := statOf(t, file); st.Atim.Sec != 1000 || st.Mode&0o777 != 0o644 {
		t.Errorf("the file was touched: atime %d, mode %o", st.Atim.Sec, st.Mode)
	}
}

// Mounts inside a layer are not part of it, and no device is opened through it.
func TestCloneHidesMountsAndDevices(t *testing.T) {
	path := t.TempDir()
	write(t, filepath.Join(path, "m/below"), "")
	must(t, unix.Mknod(filepath.Join(path, "null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
	must(t, os.MkdirAll(filepath.Join(path, "up"), 0o755))
	must(t, os.MkdirAll(filepath.Join(path, "work"), 0o755))
	must(t, unix.Mknod(filepath.Join(path, "up/null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
	mountTmpfs(t, filepath.Join(path, "m"))
	d, _, err := OpenLower(path)
	must(t, err)
	defer d.Close()
	m, err := d.OpenDir("m")
	must(t, err)
	defer m.Close()
	var st Stat
	want(t, "what the mount covers", m.At("below").Stat(&st), nil)
	_, err = d.At("null").OpenFile(unix.O_RDONLY)
	want(t, "device in a lower", err, unix.EACCES)

	u, w, err := OpenUpper(filepath.Join(path, "up"), filepath.Join(path, "work"), 0)
	must(t, err)
	defer u.Close()
	defer w.Close()
	_, err = u.At("null").OpenFile(unix.O_RDWR)
	want(t, "device in the upper", err, unix.EACCES)
	want(t, "making a whiteout", w.Mknod("whiteout", unix.S_IFCHR, 0), nil)
	if must(t, w.At("whiteout").Stat(&st)); !isWhiteoutDevice(&st) {
		t.Errorf("whiteout is %o %d", st.Mode, st.Rdev)
	}
}

// Where the kernel refuses a clone, the layer is reached as it is.
func TestLowerWithoutClone(t *testing.T) {
	path := t.TempDir()
	write(t, filepath.Join(path, "file"), "data")
	for _, call := range []string{"open_tree", "mount_setattr"} {
		fds := openFDs(t)
		refusing(call, unix.EPERM, func() {
			d, cloned, err := OpenLower(path)
			must(t, err)
			if cloned {
				t.Errorf("cloned without %s", call)
			}
			var st Stat
			want(t, "stat", d.At("file").Stat(&st), nil)
			d.Close()
		})
		if n := openFDs(t); n != fds {
			t.Errorf("%d descriptors, want %d", n, fds)
		}
	}
	_, _, err := OpenLower(filepath.Join(path, "nothing"))
	want(t, "no such layer", err, unix.ENOENT)
	_, _, err = OpenLower(filepath.Join(path, "file"))
	want(t, "layer that is a file", err, unix.ENOTDIR)
	refusing("openat2", unix.EIO, func() {
		_, _, err := OpenLower(path)
		want(t, "layer that cannot be opened", err, unix.EIO)
	})
}

// Upper and work are one mount: what is staged can be renamed into place, with a clone and without.
func TestUpperAndWork(t *testing.T) {
	base := t.TempDir()
	for _, p := range []string{"a/b", "a/bc", "a/b/inside", "target"} {
		must(t, os.MkdirAll(filepath.Join(base, p), 0o755))
	}
	must(t, os.Symlink(filepath.Join(base, "target"), filepath.Join(base, "link")))
	pairs := [][2]string{{"a/b", "a/bc"}, {"a/bc", "a/b"}, {"a/b", "a/b/inside"}, {"a/b/inside", "a/b"}, {"link", "a/b"}, {"a", "link"}}
	for _, call := range []string{"none", "open_tree", "openat2 once"} {
		for _, p := range pairs {
			fds, seen := openFDs(t), false
			SetFault(func(op Op) error {
				if op.Call == call || (call == "openat2 once" && op.Call == "openat2" && !seen) {
					seen = true
					return unix.EPERM
				}
				return nil
			})
			u, w, err := OpenUpper(filepath.Join(base, p[0]), filepath.Join(base, p[1]), 0)
			SetFault(nil)
			must(t, err)
			f, err := w.CreateFile("staged", 0o600)
			must(t, err)
			f.Close()
			want(t, p[0]+" "+p[1]+": rename", w.Rename("staged", u, "placed", unix.RENAME_NOREPLACE), nil)
			if _, err := os.Stat(filepath.Join(base, p[0], "placed")); err != nil {
				t.Errorf("%v: %v", p, err)
			}
			want(t, "unlink", u.Unlink("placed"), nil)
			u.Close()
			w.Close()
			if n := openFDs(t); n != fds {
				t.Errorf("%v: %d descriptors, want %d", p, n, fds)
			}
		}
	}
}

func TestUpperErrors(t *testing.T) {
	base := t.TempDir()
	for _, p := range []string{"up", "work", "m"} {
		must(t, os.Mkdir(filepath.Join(base, p), 0o755))
	}
	mountTmpfs(t, filepath.Join(base, "m"))
	up := filepath.Join(base, "up")
	fds := openFDs(t)
	for work, e := range map[string]error{"m": unix.EXDEV, "nothing": unix.ENOENT} {
		_, _, err := OpenUpper(up, filepath.Join(base, work), 0)
		want(t, "work "+work, err, e)
	}
	_, _, err := OpenUpper(filepath.Join(base, "nothing"), up, 0)
	want(t, "upper that is not there", err, unix.ENOENT)

	// every call that opens fails once; then the pair is either there or nothing is open
	for i, seen := 0, 1; seen > i; i++ {
		seen = 0
		SetFault(func(Op) error {
			seen++
			if seen > i {
				return unix.EIO
			}
			return nil
		})
		u, w, err := OpenUpper(up, filepath.Join(base, "work"), 0)
		SetFault(nil)
		if err == nil {
			u.Close()
			w.Close()
		}
		if n := openFDs(t); n != fds {
			t.Errorf("failing from call %d on: %d descriptors, want %d", i, n, fds)
		}
	}
}

// An upper whose mount is bound a second time, and one with a mount on the way to it.
func TestUpperBehindMounts(t *testing.T) {
	base := t.TempDir()
	for _, p := range []string{"real/up", "real/work", "bound"} {
		must(t, os.MkdirAll(filepath.Join(base, p), 0o755))
	}
	bound := filepath.Join(base, "bound")
	must(t, unix.Mount(filepath.Join(base, "real"), bound, "", unix.MS_BIND, ""))
	t.Cleanup(func() { must(t, unix.Unmount(bound, unix.MNT_DETACH)) })
	u, w, err := OpenUpper(filepath.Join(bound, "up"), filepath.Join(bound, "work"), 0)
	must(t, err)
	want(t, "mkdir", w.Mkdir("d", 0o755), nil)
	want(t, "rename", w.Rename("d", u, "d", 0), nil)
	u.Close()
	w.Close()
	_, _, err = OpenUpper(filepath.Join(bound, "up"), filepath.Join(base, "real/work"), 0)
	want(t, "two mounts of one file system", err, unix.EXDEV)
}

func TestCommonAncestor(t *testing.T) {
	for _, c := range [][3]string{
		{"/a/b", "/a/c", "/a"}, {"/a/b", "/a/bc", "/a"}, {"/a/bc", "/a/b", "/a"}, {"/a", "/a/b", "/a"}, {"/a/b", "/a", "/a"},
		{"/a", "/b", "/"}, {"/", "/b", "/"}, {"/b/c", "/", "/"}, {"/a/b", "/a/b", "/a/b"},
	} {
		if got := commonAncestor(c[0], c[1]); got != c[2] {
			t.Errorf("commonAncestor(%s, %s) = %s, want %s", c[0], c[1], got, c[2])
		}
		for _, p := range c[:2] {
			if got := filepath.Join(c[2], below(p, c[2])); got != p {
				t.Errorf("below(%s, %s) leads to %s", p, c[2], got)
			}
		}
	}
}

// The lock of a directory is this process's until it closes it.
func TestLock(t *testing.T) {
	_, path := layer(t)
	a, b := openPlain(t, path), openPlain(t, path)
	want(t, "lock", a.Lock(), nil)
	want(t, "second lock", b.Lock(), unix.EWOULDBLOCK)
}
