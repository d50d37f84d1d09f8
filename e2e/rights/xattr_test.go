package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func TestXattrs(t *testing.T) {
	eachMode(t, allModes, func(t *testing.T, e *env) {
		o := e.mounted(t, "file low \"x\"\nxattr low user.a 1\nxattr low user.b 2\ndir d\nxattr d user.d 3\nfile plain \"x\"")
		equal(t, "a lower's xattr", xattrOf(o.path("low"), "user.a"), "1")
		equal(t, "a missing one", xattrOf(o.path("low"), "user.none"), "ENODATA")
		check(t, unix.Setxattr(o.path("low"), "user.a", []byte("changed"), unix.XATTR_REPLACE))
		check(t, unix.Removexattr(o.path("low"), "user.b"))
		check(t, unix.Setxattr(o.path("d"), "user.new", []byte("n"), unix.XATTR_CREATE))
		check(t, unix.Setxattr(o.path("plain"), "user.empty", nil, 0))
		wantErr(t, "create of what exists", unix.Setxattr(o.path("low"), "user.a", nil, unix.XATTR_CREATE), syscall.EEXIST)
		wantErr(t, "replace of what is missing", unix.Setxattr(o.path("low"), "user.x", nil, unix.XATTR_REPLACE), syscall.ENODATA)
		wantErr(t, "remove of what is missing", unix.Removexattr(o.path("low"), "user.b"), syscall.ENODATA)
		_, err := unix.Getxattr(o.path("low"), "user.a", make([]byte, 3))
		wantErr(t, "a buffer too small", err, syscall.ERANGE)
		n, err := unix.Getxattr(o.path("low"), "user.a", nil)
		check(t, err)
		equal(t, "size asked for", n, 7)
		for range 2 {
			equal(t, "changed", xattrOf(o.path("low"), "user.a"), "changed")
			equal(t, "removed", xattrOf(o.path("low"), "user.b"), "ENODATA")
			equal(t, "names", listNames(t, o.path("low")), "user.a")
			equal(t, "directory", listNames(t, o.path("d")), "user.d user.new")
			equal(t, "empty value", xattrOf(o.path("plain"), "user.empty"), "")
			o.remount()
		}
		big := strings.Repeat("v", 3000)
		check(t, unix.Setxattr(o.path("plain"), "user.big", []byte(big), 0))
		appendTo(t, o.path("low"), "after the xattrs")
		o.remount()
		equal(t, "a big value", xattrOf(o.path("plain"), "user.big"), big)
		equal(t, "the lower's own", xattrOf(filepath.Join(o.lowers[0], "low"), "user.a"), "1")
		equal(t, "xattrs survive the copy-up of data", listNames(t, o.path("low")), "user.a")
	})
}

func xattrOf(path, name string) string {
	v, err := getXattr(path, name)
	if err != nil {
		return errnoName(err)
	}
	return v
}

func listNames(t *testing.T, path string) string {
	t.Helper()
	names, err := xattrNames(path)
	check(t, err)
	slices.Sort(names)
	return strings.Join(slices.DeleteFunc(names, func(n string) bool { return n == "security.selinux" }), " ")
}

// Private attributes are not shown; those that a nested overlay sets are kept apart from ours.
func TestPrivateXattrs(t *testing.T) {
	needDaemon(t)
	eachMode(t, rootModes, func(t *testing.T, e *env) {
		o := e.mounted(t,
			"opaque d\nfile d/f \"x\"\nfile f \"x\"\nxattr f user.overlay.origin o\nxattr f user.fuseoverlayfs.origin o\nxattr f user.shown 1", "dir e")
		equal(t, "of an opaque directory", listNames(t, o.path("d")), "")
		equal(t, "of a file", listNames(t, o.path("f")), "user.shown")
		prefix := strings.TrimSuffix(e.opaqueName(), "opaque")
		equal(t, "asked by name", xattrOf(o.path("d"), e.opaqueName()), "ENODATA")
		// Set through the mount it is data of the user, not a mark of this mount.
		if err := unix.Setxattr(o.path("e"), prefix+"opaque", []byte("y"), 0); err == nil {
			equal(t, "read back", xattrOf(o.path("e"), prefix+"opaque"), "y")
			equal(t, "stored under the escaped name", xattrOf(filepath.Join(o.upper, "e"), prefix+"overlay.opaque"), "y")
			check(t, unix.Removexattr(o.path("e"), prefix+"opaque"))
		} else {
			wantErr(t, "setting a private name", err, syscall.EOPNOTSUPP, syscall.EPERM)
		}
	})
}

// An overlay whose layers lie in an overlay: removals in the inner one are its own.
func TestNestedOverlay(t *testing.T) {
	needDaemon(t)
	eachMode(t, allModes, func(t *testing.T, e *env) {
		outer := e.mounted(t, "file low/d/f \"lower\"\nfile low/gone \"lower\"\nfile low/kept \"lower\"")
		mkdir(t, outer.path("up"), outer.path("wk"))
		inner := &overlay{t: t, env: e, lowers: []string{outer.path("low")}, upper: outer.path("up"), work: outer.path("wk"),
			mnt: filepath.Join(e.dir, "inner"), log: filepath.Join(e.dir, "inner.log")}
		mkdir(t, inner.mnt)
		inner.mount()
		check(t, os.Remove(inner.path("gone")))
		check(t, os.RemoveAll(inner.path("d")))
		check(t, os.Mkdir(inner.path("d"), 0o755))
		appendTo(t, inner.path("kept"), "+")
		want := "dir d\nfile kept \"lower+\""
		wantTree(t, "the inner mount", inner.mnt, want)
		inner.remount()
		wantTree(t, "the inner mount after a remount", inner.mnt, want)
		inner.unmount()
		outer.remount()
		inner.mount()
		wantTree(t, "after a remount of both", inner.mnt, want)
		inner.unmount()
		wantTree(t, "the outer's view of the inner lower", outer.path("low"), "file d/f \"lower\"\nfile gone \"lower\"\nfile kept \"lower\"")
	})
}

func TestNoXattrs(t *testing.T) {
	needDaemon(t)
	eachMode(t, rootModes, func(t *testing.T, e *env) {
		o := e.overlay(t, "file f \"x\"\nxattr f user.a 1")
		o.opts = []string{"noxattrs"}
		o.mount()
		equal(t, "get", xattrOf(o.path("f"), "user.a"), errnoName(syscall.EOPNOTSUPP))
		wantErr(t, "set", unix.Setxattr(o.path("f"), "user.a", []byte("2"), 0), syscall.EOPNOTSUPP)
		wantText(t, o.path("f"), "x")
	})
}

func getfacl(t *testing.T, path string) string {
	t.Helper()
	out := sh(t, "", "getfacl -cpn "+path)
	return strings.Join(strings.Fields(out), " ")
}

func TestACLs(t *testing.T) {
	eachMode(t, rootModes, func(t *testing.T, e *env) {
		o := e.overlay(t, "file low 0640 \"x\"\ndir dir 0750\nfile dir/f 0600 \"x\"\ndir def 0755")
		low := o.lowers[0]
		sh(t, low, "setfacl -m u:1000:rw low; setfacl -m u:1000:rwx dir; setfacl -m u:1000:r dir/f; setfacl -d -m u:1000:rwx,g::r-x,o::- def")
		o.mount()
		for _, name := range []string{"low", "dir", "dir/f", "def"} {
			equal(t, "the lower's ACL of "+name, getfacl(t, o.path(name)), getfacl(t, filepath.Join(low, name)))
		}
		as(t, 1000, 1000, func() {
			wantText(t, o.path("low"), "x")
			wantText(t, o.path("dir/f"), "x")
			appendTo(t, o.path("low"), "+user")
			_, err := os.OpenFile(o.path("dir/f"), os.O_WRONLY, 0)
			wantErr(t, "writing with an ACL of r--", err, syscall.EACCES)
		})
		as(t, 1001, 1001, func() {
			_, err := os.ReadFile(o.path("low"))
			wantErr(t, "reading without an entry", err, syscall.EACCES)
		})
		equal(t, "the ACL after copy-up", getfacl(t, o.path("low")), getfacl(t, filepath.Join(low, "low")))
		// A default ACL takes the place of the umask.
		write(t, o.path("def/new"), "n")
		check(t, os.Mkdir(o.path("def/sub"), 0o777))
		equal(t, "inherited by a file", getfacl(t, o.path("def/new")), "user::rw- user:1000:rwx #effective:r-- group::r-x #effective:r-- mask::r-- other::---")
		equal(t, "inherited by a directory", getfacl(t, o.path("def/sub")),
			"user::rwx user:1000:rwx group::r-x mask::rwx other::--- default:user::rwx default:user:1000:rwx default:group::r-x default:mask::rwx default:other::---")
		equal(t, "mode of the file", lstat(t, o.path("def/new")).Mode&0o777, 0o640)
		// chmod changes the mask; setfacl -b removes.
		check(t, os.Chmod(o.path("dir/f"), 0o640))
		equal(t, "after chmod", getfacl(t, o.path("dir/f")), "user::rw- user:1000:r-- group::--- mask::r-- other::---")
		sh(t, o.mnt, "setfacl -b dir; setfacl -m u:1001:rw low")
		equal(t, "after setfacl -b", getfacl(t, o.path("dir")), "user::rwx group::r-x other::---")
		as(t, 1001, 1001, func() { wantText(t, o.path("low"), "x+user") })
		before := map[string]string{}
		for _, name := range []string{"low", "dir", "dir/f", "def", "def/new", "def/sub"} {
			before[name] = getfacl(t, o.path(name))
		}
		o.remount()
		for name, acl := range before {
			equal(t, name+" after a remount", getfacl(t, o.path(name)), acl)
		}
	})
}

func TestNoACL(t *testing.T) {
	needDaemon(t)
	eachMode(t, onlyRoot, func(t *testing.T, e *env) {
		o := e.overlay(t, "file f 0600 \"x\"")
		sh(t, o.lowers[0], "setfacl -m u:1000:r f")
		check(t, os.Chmod(filepath.Join(o.lowers[0], "f"), 0o600)) // mask ---
		o.opts = []string{"noacl"}
		o.mount()
		as(t, 1000, 1000, func() {
			_, err := os.ReadFile(o.path("f"))
			wantErr(t, "an ACL is no help with noacl", err, syscall.EACCES)
		})
		if out, err := runCommand("setfacl", "-m", "u:1001:r", o.path("f")); err == nil || !strings.Contains(out, "Operation not supported") {
			t.Errorf("setfacl with noacl: %v\n%s", err, out)
		}
		equal(t, "names", listNames(t, o.path("f")), "")
	})
}

// The umask, with and without a default ACL, for every way to make an object.
func TestUmask(t *testing.T) {
	eachMode(t, allModes, func(t *testing.T, e *env) {
		o := e.mounted(t, "dir d\ndir plainparent 0777")
		old := syscall.Umask(0o027)
		defer syscall.Umask(old)
		p := func(name string) string { return o.path("d/" + name) }
		check(t, os.WriteFile(p("file"), nil, 0o666))
		check(t, syscall.Mkdir(p("dir"), 0o777))
		check(t, unix.Mknod(p("fifo"), unix.S_IFIFO|0o666, 0))
		check(t, unix.Mknod(p("reg"), unix.S_IFREG|0o666, 0))
		for name, want := range map[string]uint32{"file": 0o640, "dir": 0o750, "fifo": 0o640, "reg": 0o640} {
			equal(t, name, fmt.Sprintf("%o", lstat(t, p(name)).Mode&0o7777), fmt.Sprintf("%o", want))
			equal(t, name+" in the upper", fmt.Sprintf("%o", lstat(t, filepath.Join(o.upper, "d", name)).Mode&0o7777), fmt.Sprintf("%o", want))
		}
	})
}
