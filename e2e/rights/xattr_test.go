package rights

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

func TestXattrs(t *testing.T) {
	harness.EachMode(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		o := e.Mounted(t, "file low \"x\"\nxattr low user.a 1\nxattr low user.b 2\ndir d\nxattr d user.d 3\nfile plain \"x\"")
		harness.Equal(t, "a lower's xattr", harness.XattrOf(o.Path("low"), "user.a"), "1")
		harness.Equal(t, "a missing one", harness.XattrOf(o.Path("low"), "user.none"), "ENODATA")
		harness.Check(t, unix.Setxattr(o.Path("low"), "user.a", []byte("changed"), unix.XATTR_REPLACE))
		harness.Check(t, unix.Removexattr(o.Path("low"), "user.b"))
		harness.Check(t, unix.Setxattr(o.Path("d"), "user.new", []byte("n"), unix.XATTR_CREATE))
		harness.Check(t, unix.Setxattr(o.Path("plain"), "user.empty", nil, 0))
		harness.WantErr(t, "create of what exists", unix.Setxattr(o.Path("low"), "user.a", nil, unix.XATTR_CREATE),
			syscall.EEXIST)
		harness.WantErr(t, "replace of what is missing", unix.Setxattr(o.Path("low"), "user.x", nil, unix.XATTR_REPLACE),
			syscall.ENODATA)
		harness.WantErr(t, "remove of what is missing", unix.Removexattr(o.Path("low"), "user.b"), syscall.ENODATA)
		_, err := unix.Getxattr(o.Path("low"), "user.a", make([]byte, 3))
		harness.WantErr(t, "a buffer too small", err, syscall.ERANGE)
		n, err := unix.Getxattr(o.Path("low"), "user.a", nil)
		harness.Check(t, err)
		harness.Equal(t, "size of the list", n, 7)
		for range 2 {
			harness.Equal(t, "changed", harness.XattrOf(o.Path("low"), "user.a"), "changed")
			harness.Equal(t, "removed", harness.XattrOf(o.Path("low"), "user.b"), "ENODATA")
			harness.Equal(t, "names", listNames(t, o.Path("low")), "user.a")
			harness.Equal(t, "directory", listNames(t, o.Path("d")), "user.d user.new")
			harness.Equal(t, "empty value", harness.XattrOf(o.Path("plain"), "user.empty"), "")
			o.Remount()
		}
		big := strings.Repeat("v", 3000)
		harness.Check(t, unix.Setxattr(o.Path("plain"), "user.big", []byte(big), 0))
		harness.AppendTo(t, o.Path("low"), "after the xattrs")
		o.Remount()
		harness.Equal(t, "a big value", harness.XattrOf(o.Path("plain"), "user.big"), big)
		harness.Equal(t, "the lower's own", harness.XattrOf(filepath.Join(o.Lowers[0], "low"), "user.a"), "1")
		harness.Equal(t, "xattrs survive the copy-up of data", listNames(t, o.Path("low")), "user.a")
	})
}

func listNames(t *testing.T, path string) string {
	t.Helper()
	names, err := harness.XattrNames(path)
	harness.Check(t, err)
	slices.Sort(names)
	return strings.Join(slices.DeleteFunc(names, func(n string) bool { return n == "security.selinux" }), " ")
}

// The mount does not show its overlay xattrs. Those of a nested overlay are stored apart from them.
func TestPrivateXattrs(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.RootModes, func(t *testing.T, e *harness.Env) {
		o := e.Mounted(t,
			"opaque d\nfile d/f \"x\"\nfile f \"x\"\nxattr f user.overlay.origin o\nxattr f user.fuseoverlayfs.origin o\nxattr f user.shown 1", "dir e")
		harness.Equal(t, "of an opaque directory", listNames(t, o.Path("d")), "")
		harness.Equal(t, "of a file", listNames(t, o.Path("f")), "user.shown")
		prefix := e.XattrPrefix()
		harness.Equal(t, "read by name", harness.XattrOf(o.Path("d"), e.OpaqueName()), "ENODATA")
		// An xattr of this name that a user sets is data, and not opaque to this mount.
		if err := unix.Setxattr(o.Path("e"), prefix+"opaque", []byte("y"), 0); err == nil {
			harness.Equal(t, "read back", harness.XattrOf(o.Path("e"), prefix+"opaque"), "y")
			harness.Equal(t, "stored under the escaped name", harness.XattrOf(filepath.Join(o.Upper, "e"),
				prefix+"overlay.opaque"), "y")
			harness.Check(t, unix.Removexattr(o.Path("e"), prefix+"opaque"))
		} else {
			harness.WantErr(t, "setting a private name", err, syscall.EOPNOTSUPP, syscall.EPERM)
		}
	})
}

// The layers of an overlay lie in another overlay. Removals in the inner one do not change the
// outer one.
func TestNestedOverlay(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		outer := e.Mounted(t, "file low/d/f \"lower\"\nfile low/gone \"lower\"\nfile low/kept \"lower\"")
		harness.Mkdir(t, outer.Path("up"), outer.Path("wk"))
		inner := &harness.Overlay{T: t, Env: e, Lowers: []string{outer.Path("low")}, Upper: outer.Path("up"),
			Work:  outer.Path("wk"),
			Point: filepath.Join(e.Dir, "inner"), Log: filepath.Join(e.Dir, "inner.log")}
		harness.Mkdir(t, inner.Point)
		inner.Mount()
		harness.Check(t, os.Remove(inner.Path("gone")))
		harness.Check(t, os.RemoveAll(inner.Path("d")))
		harness.Check(t, os.Mkdir(inner.Path("d"), 0o755))
		harness.AppendTo(t, inner.Path("kept"), "+")
		want := "dir d\nfile kept \"lower+\""
		harness.WantTree(t, "the inner mount", inner.Point, want)
		inner.Remount()
		harness.WantTree(t, "the inner mount after a remount", inner.Point, want)
		inner.Unmount()
		outer.Remount()
		inner.Mount()
		harness.WantTree(t, "after a remount of both", inner.Point, want)
		inner.Unmount()
		harness.WantTree(t, "the outer's view of the inner lower", outer.Path("low"),
			"file d/f \"lower\"\nfile gone \"lower\"\nfile kept \"lower\"")
	})
}

func TestNoXattrs(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.RootModes, func(t *testing.T, e *harness.Env) {
		o := e.Overlay(t, "file f \"x\"\nxattr f user.a 1")
		o.Opts = []string{"noxattrs"}
		o.Mount()
		harness.Equal(t, "get", harness.XattrOf(o.Path("f"), "user.a"), harness.ErrnoName(syscall.EOPNOTSUPP))
		harness.WantErr(t, "set", unix.Setxattr(o.Path("f"), "user.a", []byte("2"), 0), syscall.EOPNOTSUPP)
		harness.WantText(t, o.Path("f"), "x")
	})
}

func getfacl(t *testing.T, path string) string {
	t.Helper()
	out := harness.Shell(t, "", "getfacl -cpn "+path)
	return strings.Join(strings.Fields(out), " ")
}

func TestACLs(t *testing.T) {
	harness.EachMode(t, harness.RootModes, func(t *testing.T, e *harness.Env) {
		o := e.Overlay(t, "file low 0640 \"x\"\ndir dir 0750\nfile dir/f 0600 \"x\"\ndir def 0755")
		low := o.Lowers[0]
		harness.Shell(t, low, "setfacl -m u:1000:rw low; setfacl -m u:1000:rwx dir; setfacl -m u:1000:r dir/f; setfacl -d -m u:1000:rwx,g::r-x,o::- def")
		o.Mount()
		for _, name := range []string{"low", "dir", "dir/f", "def"} {
			harness.Equal(t, "the lower's ACL of "+name, getfacl(t, o.Path(name)), getfacl(t, filepath.Join(low, name)))
		}
		harness.As(t, 1000, 1000, func() {
			harness.WantText(t, o.Path("low"), "x")
			harness.WantText(t, o.Path("dir/f"), "x")
			harness.AppendTo(t, o.Path("low"), "+user")
			_, err := os.OpenFile(o.Path("dir/f"), os.O_WRONLY, 0)
			harness.WantErr(t, "writing with an ACL of r--", err, syscall.EACCES)
		})
		harness.As(t, 1001, 1001, func() {
			_, err := os.ReadFile(o.Path("low"))
			harness.WantErr(t, "reading without an entry", err, syscall.EACCES)
		})
		harness.Equal(t, "the ACL after copy-up", getfacl(t, o.Path("low")), getfacl(t, filepath.Join(low, "low")))
		// A default ACL replaces the umask.
		harness.Write(t, o.Path("def/new"), "n")
		harness.Check(t, os.Mkdir(o.Path("def/sub"), 0o777))
		harness.Equal(t, "inherited by a file", getfacl(t, o.Path("def/new")),
			"user::rw- user:1000:rwx #effective:r-- group::r-x #effective:r-- mask::r-- other::---")
		harness.Equal(t, "inherited by a directory", getfacl(t, o.Path("def/sub")),
			"user::rwx user:1000:rwx group::r-x mask::rwx other::--- default:user::rwx default:user:1000:rwx default:group::r-x default:mask::rwx default:other::---")
		harness.Equal(t, "mode of the file", harness.Lstat(t, o.Path("def/new")).Mode&0o777, 0o640)
		// chmod changes the mask; setfacl -b removes.
		harness.Check(t, os.Chmod(o.Path("dir/f"), 0o640))
		harness.Equal(t, "after chmod", getfacl(t, o.Path("dir/f")),
			"user::rw- user:1000:r-- group::--- mask::r-- other::---")
		harness.Shell(t, o.Point, "setfacl -b dir; setfacl -m u:1001:rw low")
		harness.Equal(t, "after setfacl -b", getfacl(t, o.Path("dir")), "user::rwx group::r-x other::---")
		harness.As(t, 1001, 1001, func() { harness.WantText(t, o.Path("low"), "x+user") })
		before := map[string]string{}
		for _, name := range []string{"low", "dir", "dir/f", "def", "def/new", "def/sub"} {
			before[name] = getfacl(t, o.Path(name))
		}
		o.Remount()
		for name, acl := range before {
			harness.Equal(t, name+" after a remount", getfacl(t, o.Path(name)), acl)
		}
	})
}

func TestNoACL(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.OnlyRoot, func(t *testing.T, e *harness.Env) {
		o := e.Overlay(t, "file f 0600 \"x\"")
		harness.Shell(t, o.Lowers[0], "setfacl -m u:1000:r f")
		harness.Check(t, os.Chmod(filepath.Join(o.Lowers[0], "f"), 0o600)) // mask ---
		o.Opts = []string{"noacl"}
		o.Mount()
		harness.As(t, 1000, 1000, func() {
			_, err := os.ReadFile(o.Path("f"))
			harness.WantErr(t, "an ACL is no help with noacl", err, syscall.EACCES)
		})
		if out, err := harness.Run("setfacl", "-m", "u:1001:r", o.Path("f")); err == nil ||
			!strings.Contains(out, "Operation not supported") {
			t.Errorf("setfacl with noacl: %v\n%s", err, out)
		}
		harness.Equal(t, "names", listNames(t, o.Path("f")), "")
	})
}

// The umask, with and without a default ACL, for every way to make an object.
func TestUmask(t *testing.T) {
	harness.EachMode(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		o := e.Mounted(t, "dir d\ndir plainparent 0777")
		old := syscall.Umask(0o027)
		defer syscall.Umask(old)
		p := func(name string) string { return o.Path("d/" + name) }
		harness.Check(t, os.WriteFile(p("file"), nil, 0o666))
		harness.Check(t, syscall.Mkdir(p("dir"), 0o777))
		harness.Check(t, unix.Mknod(p("fifo"), unix.S_IFIFO|0o666, 0))
		harness.Check(t, unix.Mknod(p("reg"), unix.S_IFREG|0o666, 0))
		for name, want := range map[string]uint32{"file": 0o640, "dir": 0o750, "fifo": 0o640, "reg": 0o640} {
			harness.Equal(t, name, fmt.Sprintf("%o", harness.Lstat(t, p(name)).Mode&0o7777), fmt.Sprintf("%o", want))
			harness.Equal(t, name+" in the upper", fmt.Sprintf("%o",
				harness.Lstat(t, filepath.Join(o.Upper, "d", name)).Mode&0o7777), fmt.Sprintf("%o", want))
		}
	})
}
