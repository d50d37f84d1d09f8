package sys

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// refs are the ways to name one object: as an entry, by a descriptor that does not read, and as an
// open file.
func refs(t *testing.T, d *Dir, name string) map[string]Ref {
	t.Helper()
	o, err := d.At(name).Open()
	must(t, err)
	t.Cleanup(o.Close)
	again, err := o.Ref().Open()
	must(t, err)
	t.Cleanup(again.Close)
	all := map[string]Ref{"entry": d.At(name), "object": o.Ref(), "object opened again": again.Ref()}
	st := statOf(t, o.Ref())
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		f, err := d.At(name).OpenFile(unix.O_RDWR)
		must(t, err)
		t.Cleanup(f.Close)
		all["open file"] = f.Ref()
	case unix.S_IFDIR:
		sub, err := d.OpenDir(name)
		must(t, err)
		t.Cleanup(sub.Close)
		all["directory"] = sub.Ref()
	}
	return all
}

// objects makes one object of each kind; the symbolic link leads to the file "target", which no
// call may touch.
func objects(t *testing.T) (*Dir, []string) {
	t.Helper()
	d, path := layer(t)
	write(t, filepath.Join(path, "target"), "t")
	write(t, filepath.Join(path, "file"), "data")
	must(t, os.Mkdir(filepath.Join(path, "dir"), 0o755))
	must(t, d.Symlink("target", "link"))
	must(t, d.Mknod("fifo", unix.S_IFIFO|0o644, 0))
	must(t, d.Mknod("device", unix.S_IFBLK|0o644, unix.Mkdev(300, 70000)))
	return d, []string{"file", "dir", "link", "fifo", "device"}
}

// Attributes of every kind of object can be set however it is named, and a symbolic link is never
// followed.
func TestAttributes(t *testing.T) {
	d, names := objects(t)
	before := statOf(t, d.At("target"))
	n := uint32(0)
	for _, name := range names {
		for how, r := range refs(t, d, name) {
			n++
			what := name + " as " + how
			must(t, r.Chown(n, n+1000))
			must(t, r.Chown(Unchanged, n+2000))
			must(t, r.Utimes(unix.Timespec{Sec: int64(n), Nsec: 123456789}, unix.Timespec{Sec: 5, Nsec: 987654321}))
			must(t, r.Utimes(unix.Timespec{Nsec: unix.UTIME_OMIT}, unix.Timespec{Sec: 6, Nsec: 1}))
			mode := 0o400 + n%8
			for _, chmod := range []func(uint32) error{r.Chmod, r.chmodByDescriptor} {
				if name == "link" {
					want(t, what+": chmod", chmod(mode), unix.EOPNOTSUPP)
					mode = 0o777
				} else {
					want(t, what+": chmod", chmod(mode), nil)
				}
				st := statOf(t, d.At(name))
				if st.Uid != n || st.Gid != n+2000 || st.Atim != (unix.Timespec{Sec: int64(n), Nsec: 123456789}) ||
					st.Mtim != (unix.Timespec{Sec: 6, Nsec: 1}) || st.Mode&0o7777 != mode {
					t.Errorf("%s: owner %d:%d atime %v mtime %v mode %o, want mode %o", what, st.Uid, st.Gid, st.Atim, st.Mtim, st.Mode, mode)
				}
				if mode != 0o777 {
					mode ^= 0o4040
				}
			}
			if got := statOf(t, r); got.Ino != statOf(t, d.At(name)).Ino {
				t.Errorf("%s: other object", what)
			}
			var fs unix.Statfs_t
			if must(t, r.Statfs(&fs)); fs.Namelen < 100 {
				t.Errorf("%s: names of %d bytes", what, fs.Namelen)
			}
		}
	}
	if after := statOf(t, d.At("target")); after != before {
		t.Errorf("the target of the link was touched: %+v, was %+v", after, before)
	}
}

// So can extended attributes, also where the kernel has no calls for a directory and a name.
func TestXattrs(t *testing.T) {
	if _, err := getxattrat(unix.AT_FDCWD, ".", "user.none"); err != unix.ENODATA && err != unix.ENOSYS {
		t.Errorf("getxattrat: %v", err)
	}
	t.Run("present", testXattrs)
	present := hasXattrat
	t.Cleanup(func() { hasXattrat = present })
	hasXattrat = func() bool { return false }
	t.Run("older kernel", testXattrs)
}

func testXattrs(t *testing.T) {
	d, names := objects(t)
	big := strings.Repeat("v", 3000)
	for _, name := range names {
		for how, r := range refs(t, d, name) {
			what := name + " as " + how
			ns := "trusted."
			if name == "file" || name == "dir" {
				ns = "user."
			}
			_, err := r.GetXattr(ns + "a")
			want(t, what+": get", err, unix.ENODATA)
			if list, err := r.ListXattr(); list == nil || len(list) > 0 || err != nil {
				t.Errorf("%s: the list of none is %#v, %v", what, list, err)
			}
			want(t, what+": replace", r.SetXattr(ns+"a", nil, unix.XATTR_REPLACE), unix.ENODATA)
			want(t, what+": create", r.SetXattr(ns+"a", []byte(big), unix.XATTR_CREATE), nil)
			want(t, what+": create", r.SetXattr(ns+"a", nil, unix.XATTR_CREATE), unix.EEXIST)
			want(t, what+": set", r.SetXattr(ns+"empty", nil, 0), nil)
			if v, err := r.GetXattr(ns + "a"); err != nil || string(v) != big {
				t.Errorf("%s: got %d bytes, %v", what, len(v), err)
			}
			if v, err := d.At(name).GetXattr(ns + "empty"); err != nil || len(v) != 0 {
				t.Errorf("%s: got %q, %v", what, v, err)
			}
			list, err := r.ListXattr()
			slices.Sort(list)
			if must(t, err); !slices.Equal(list, []string{ns + "a", ns + "empty"}) {
				t.Errorf("%s: list is %v", what, list)
			}
			want(t, what+": remove", r.RemoveXattr(ns+"a"), nil)
			want(t, what+": remove", r.RemoveXattr(ns+"a"), unix.ENODATA)
			want(t, what+": remove", r.RemoveXattr(ns+"empty"), nil)
			for i := range 40 { // more than are listed in one step
				want(t, what+": set", r.SetXattr(fmt.Sprintf("%sa.rather.long.name.%d", ns, i), nil, 0), nil)
			}
			list, err = r.ListXattr()
			if must(t, err); len(list) != 40 {
				t.Errorf("%s: %d are listed, want 40", what, len(list))
			}
			for _, long := range list {
				want(t, what+": remove", r.RemoveXattr(long), nil)
			}
		}
	}
	if list, err := d.At("target").ListXattr(); err != nil || len(list) > 0 {
		t.Errorf("the target of the link has %v, %v", list, err)
	}
	_, err := d.At("nothing").ListXattr()
	want(t, "list of nothing", err, unix.ENOENT)
	if xattrErrno(os.ErrInvalid) != unix.EIO {
		t.Error("an error without a number is not EIO")
	}

	// a file system without any
	point := t.TempDir()
	must(t, unix.Mount("ramfs", point, "ramfs", 0, ""))
	t.Cleanup(func() { must(t, unix.Unmount(point, unix.MNT_DETACH)) })
	list, err := openPlain(t, point).Ref().ListXattr()
	if err != nil || len(list) > 0 {
		t.Errorf("ramfs: %#v, %v", list, err)
	}
}

func TestReadlink(t *testing.T) {
	d, _ := layer(t)
	for _, target := range []string{"x", "/etc/passwd", "../..", strings.Repeat("y", 4095)} {
		must(t, d.Symlink(target, "link"))
		for how, r := range refs(t, d, "link") {
			if got, err := r.Readlink(); err != nil || got != target {
				t.Errorf("%s: %.50q, %v", how, got, err)
			}
		}
		must(t, d.Unlink("link"))
	}
	must(t, d.Mkdir("dir", 0o755))
	_, err := d.At("dir").Readlink()
	want(t, "readlink of a directory", err, unix.EINVAL)
}

// Only regular files are opened, and nothing waits.
func TestOpenFile(t *testing.T) {
	d, _ := objects(t)
	must(t, d.Mknod("zero", unix.S_IFCHR|0o644, unix.Mkdev(1, 5)))
	for name, e := range map[string][2]error{
		"file": {nil, nil}, "fifo": {unix.ENXIO, unix.ENXIO}, "zero": {unix.ENXIO, unix.ENXIO},
		"dir": {unix.ENXIO, unix.EISDIR}, "link": {unix.ELOOP, unix.ELOOP}, "nothing": {unix.ENOENT, unix.ENOENT},
	} {
		for i, flags := range []int{unix.O_RDONLY, unix.O_RDWR} {
			f, err := d.At(name).OpenFile(flags)
			want(t, name, err, e[i])
			if err == nil {
				f.Close()
			}
		}
	}
	for how, r := range refs(t, d, "file") {
		f, err := r.OpenFile(unix.O_RDWR)
		must(t, err)
		if _, err := f.Pwrite([]byte("D"), 0); err != nil {
			t.Errorf("%s: %v", how, err)
		}
		f.Close()
	}
	o, err := d.At("fifo").Open()
	must(t, err)
	defer o.Close()
	_, err = o.Ref().OpenFile(unix.O_RDONLY)
	want(t, "opened fifo", err, unix.ENXIO)
}
