package whiteout

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/ondisk"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

func TestReadDir(t *testing.T) {
	impure := ondisk.DirXattrs{Impure: true}
	for _, c := range []struct {
		xattrs map[string]string
		marker bool
		want   DirXattrs
	}{
		{nil, false, DirXattrs{}},
		{nil, true, DirXattrs{Opaque: true}},
		{map[string]string{"trusted.overlay.opaque": "y"}, false, DirXattrs{Opaque: true}},
		{map[string]string{"user.overlay.opaque": "y"}, false, DirXattrs{Opaque: true}},
		{map[string]string{"user.fuseoverlayfs.opaque": "y"}, false, DirXattrs{Opaque: true}},
		{map[string]string{"trusted.overlay.opaque": "x"}, false, DirXattrs{XattrWhiteouts: true}},
		{map[string]string{"user.overlay.opaque": "x"}, true, DirXattrs{Opaque: true, XattrWhiteouts: true}},
		{map[string]string{"user.overlay.opaque": "x", "trusted.overlay.opaque": "y"}, false, DirXattrs{Opaque: true, XattrWhiteouts: true}},
		{map[string]string{"user.fuseoverlayfs.opaque": "x"}, false, DirXattrs{}},
		{map[string]string{"trusted.overlay.opaque": "n", "user.overlay.opaque": "", "user.fuseoverlayfs.opaque": "yes"}, false, DirXattrs{}},
		{map[string]string{"trusted.overlay.impure": "y"}, false, DirXattrs{DirXattrs: impure}},
		{map[string]string{"user.overlay.impure": "", "user.overlay.opaque": "y"}, true, DirXattrs{Opaque: true, DirXattrs: impure}},
		{map[string]string{"user.opaque": "y", "trusted.overlay.overlay.opaque": "y", "trusted.overlay.origin": "y"}, false, DirXattrs{}},
	} {
		d := open(t, t.TempDir())
		for name, value := range c.xattrs {
			must(t, d.Ref().SetXattr(name, []byte(value), 0))
		}
		if c.marker {
			must(t, Format{}.MakeOpaque(d))
		}
		got, err := ReadDir(both, d)
		if must(t, err); got != c.want {
			t.Errorf("%v, marker %v: %+v, want %+v", c.xattrs, c.marker, got, c.want)
		}
		got, err = ReadDirXattrs(both, d)
		want := c.want
		want.Opaque = want.Opaque && (!c.marker || len(c.xattrs) == 2)
		if must(t, err); got != want {
			t.Errorf("%v, not looking for a marker: %+v, want %+v", c.xattrs, got, want)
		}
	}
}

// A directory without extended attributes costs one call, and with the look for a marker two. Each
// error is returned.
func TestReadDirCalls(t *testing.T) {
	d := open(t, t.TempDir())
	for want, read := range map[int]func(ondisk.Names, *sys.Dir) (DirXattrs, error){1: ReadDirXattrs, 2: ReadDir} {
		n := 0
		sys.SetFault(func(sys.Op) error { n++; return nil })
		_, err := read(both, d)
		sys.SetFault(nil)
		if must(t, err); n != want {
			t.Errorf("%d calls, want %d", n, want)
		}
	}
	must(t, d.Ref().SetXattr("user.overlay.opaque", []byte("x"), 0))
	for _, call := range []string{"listxattr", "getxattr", "fstatat"} {
		refusing(func(op sys.Op) bool { return op.Call == call }, unix.EIO, func() {
			if m, err := ReadDir(both, d); err != unix.EIO || m != (DirXattrs{}) {
				t.Errorf("failing %s: %+v, %v", call, m, err)
			}
		})
	}
	refusing(func(op sys.Op) bool { return op.Call == "getxattr" }, unix.ENODATA, func() {
		if m, err := ReadDir(both, d); err != nil || m != (DirXattrs{}) {
			t.Errorf("xattr removed meanwhile: %+v, %v", m, err)
		}
	})
}

func TestIsXattrWhiteout(t *testing.T) {
	d := open(t, t.TempDir())
	for _, c := range []struct {
		mode  uint32
		size  int64
		xattr string
		want  bool
	}{
		{unix.S_IFREG, 0, "trusted.overlay.whiteout", true},
		{unix.S_IFREG, 0, "user.overlay.whiteout", true},
		{unix.S_IFREG, 0, "user.overlay.opaque", false},
		{unix.S_IFREG, 0, "trusted.overlay.overlay.whiteout", false},
		{unix.S_IFREG, 0, "", false},
		{unix.S_IFREG, 1, "trusted.overlay.whiteout", false},
		{unix.S_IFIFO, 0, "trusted.overlay.whiteout", false},
		{unix.S_IFDIR, 0, "trusted.overlay.whiteout", false},
	} {
		if c.mode == unix.S_IFDIR {
			must(t, d.Mkdir("f", 0o755))
		} else {
			must(t, d.Mknod("f", c.mode|0o600, 0))
		}
		if c.size > 0 {
			f, err := d.At("f").OpenFile(unix.O_RDWR)
			must(t, err)
			must(t, f.Truncate(c.size))
			f.Close()
		}
		if c.xattr != "" {
			must(t, d.At("f").SetXattr(c.xattr, nil, 0))
		}
		var st sys.Stat
		must(t, d.At("f").Stat(&st))
		if got, err := IsXattrWhiteout(both, d.At("f"), &st); err != nil || got != c.want {
			t.Errorf("%+v: %v, %v", c, got, err)
		}
		for _, in := range []bool{false, true} {
			if got, err := Is(both, d.At("f"), &st, in); err != nil || got != (c.want && in) {
				t.Errorf("%+v in a directory with %v: %v, %v", c, in, got, err)
			}
			if typ := uint8(st.Mode >> 12); c.want && MayBe(typ, in) != in {
				t.Errorf("an entry of type %d in a directory with %v", typ, in)
			}
		}
		if c.mode == unix.S_IFDIR {
			must(t, d.Rmdir("f"))
		} else {
			must(t, d.Unlink("f"))
		}
	}
	if _, err := IsXattrWhiteout(both, d.At("f"), &sys.Stat{Mode: unix.S_IFREG}); err != unix.ENOENT {
		t.Errorf("of nothing: %v", err)
	}
}

// With userxattr trusted.overlay.* has no meaning.
func TestReadUserXattrsOnly(t *testing.T) {
	user := ondisk.Names{UserOnly: true}
	d := open(t, t.TempDir())
	must(t, d.Mknod("f", unix.S_IFREG|0o600, 0))
	f := d.At("f")
	var st sys.Stat
	must(t, f.Stat(&st))
	want := func(dir DirXattrs, file ondisk.FileXattrs, absent bool) {
		t.Helper()
		if m, err := ReadDirXattrs(user, d); err != nil || m != dir {
			t.Errorf("%+v (%v), want %+v", m, err, dir)
		}
		if m, err := user.ReadFile(f); err != nil || m != file {
			t.Errorf("%+v (%v), want %+v", m, err, file)
		}
		if is, err := IsXattrWhiteout(user, f, &st); err != nil || is != absent {
			t.Errorf("a whiteout: %v (%v), want %v", is, err, absent)
		}
	}
	setAll := func(prefix string) {
		for name, value := range map[string]string{"opaque": "y", "redirect": "x", "impure": "y"} {
			must(t, d.Ref().SetXattr(prefix+name, []byte(value), 0))
		}
		for name, value := range map[string]string{"whiteout": "", "metacopy": "", "redirect": "/x"} {
			must(t, f.SetXattr(prefix+name, []byte(value), 0))
		}
	}
	setAll("trusted.overlay.")
	want(DirXattrs{}, ondisk.FileXattrs{}, false)
	setAll("user.overlay.")
	want(DirXattrs{Opaque: true, DirXattrs: ondisk.DirXattrs{Redirect: "x", ByUser: true, Impure: true}},
		ondisk.FileXattrs{Metacopy: true, Redirect: "/x", ByUser: true}, true)
}
