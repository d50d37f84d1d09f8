package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// overrides are the values of xattr_permissions that a mode may write, and the attribute of each.
func overrides(m mode) map[string]string {
	forms := map[string]string{"2": "user.containers.override_stat"}
	if m == modeRoot {
		forms["1"] = "security.fuseoverlayfs.override_stat"
	}
	return forms
}

func eachOverride(t *testing.T, modes []mode, fn func(t *testing.T, e *env, attr string)) {
	t.Helper()
	eachMode(t, modes, func(t *testing.T, e *env) {
		for value, attr := range overrides(e.mode) {
			withOption(t, e.mode, "xattr_permissions="+value, func(t *testing.T, e *env) { fn(t, e, attr) })
		}
	})
}

// Owner, mode, type and device number are kept in an attribute; the file that has it belongs to the daemon, and no other
// mount or program takes it for what it stands for.
func TestXattrPermissions(t *testing.T) {
	eachOverride(t, rootModes, func(t *testing.T, e *env, attr string) {
		o := e.mounted(t, "dir open 1777\nfile lower 0644 \"data\"\nown lower 3 4\nfifo pipe 0600\nsymlink link lower")
		as(t, 1000, 1001, func() {
			check(t, os.WriteFile(o.path("open/file"), []byte("mine"), 0o640))
			check(t, os.Mkdir(o.path("open/dir"), 0o755))
			check(t, unix.Mknod(o.path("open/fifo"), unix.S_IFIFO|0o640, 0))
			check(t, unix.Mknod(o.path("open/sock"), unix.S_IFSOCK|0o600, 0))
			check(t, os.Symlink("target", o.path("open/link")))
		})
		check(t, os.Lchown(o.path("lower"), 33, 34))
		check(t, os.Chmod(o.path("lower"), 0o751|os.ModeSetuid))
		check(t, os.Chmod(o.path("pipe"), 0o666))
		check(t, os.Link(o.path("open/fifo"), o.path("open/fifo2")))
		check(t, os.Rename(o.path("open/sock"), o.path("open/socket")))
		want := map[string]string{
			"open/file": "1000:1001 0640", "open/dir": "1000:1001 0755", "open/fifo": "1000:1001 0640", "open/fifo2": "1000:1001 0640",
			"open/socket": "1000:1001 0600", "lower": "33:34 4751", "pipe": "0:0 0666",
		}
		text := map[string]string{
			"open": "0:0:01777:dir", "open/file": "1000:1001:0640:file", "open/dir": "1000:1001:0755:dir", "open/fifo": "1000:1001:0640:pipe",
			"open/socket": "1000:1001:0600:socket", "lower": "33:34:04751:file", "pipe": "0:0:0666:pipe", ".": "0:0:0755:dir",
		}
		if e.mode == modeRoot {
			check(t, unix.Mknod(o.path("open/null"), unix.S_IFCHR|0o644, int(unix.Mkdev(1, 3))))
			check(t, unix.Mknod(o.path("open/disk"), unix.S_IFBLK|0o640, int(unix.Mkdev(259, 300))))
			check(t, os.WriteFile(o.path("open/null"), []byte("gone"), 0))
			want["open/null"], text["open/null"] = "0:0 0644", "0:0:0644:char-1-3"
			want["open/disk"], text["open/disk"] = "0:0 0640", "0:0:0640:block-259-300"
		}
		for range 2 {
			for name, want := range want {
				equal(t, name, owner(t, o.path(name)), want)
			}
			for name, want := range text {
				path := filepath.Join(o.upper, name)
				equal(t, attr+" of "+name, xattrOf(path, attr), want)
				equal(t, attr+" of "+name+" in the mount", xattrOf(o.path(name), attr), "ENODATA")
				st := lstat(t, path)
				if kind := st.Mode & unix.S_IFMT; name != "." && (st.Uid != 0 || st.Mode&0o7077 != 0 || kind != unix.S_IFREG && kind != unix.S_IFDIR) {
					t.Errorf("%s is on disk %d:%d %o", name, st.Uid, st.Gid, st.Mode)
				}
			}
			if d := identityFaults(o.mnt); d != "" {
				t.Error("what is listed is not what is there: ", d)
			}
			wantText(t, o.path("open/file"), "mine")
			wantText(t, o.path("lower"), "data")
			as(t, 1000, 1000, func() {
				_, err := os.ReadFile(o.path("lower"))
				wantErr(t, "reading another's file", err, syscall.EACCES)
			})
			o.remount()
		}
		wantErr(t, "setting the attribute", unix.Lsetxattr(o.path("open/file"), attr, []byte("0:0:04777:file"), 0), syscall.EPERM, syscall.EOPNOTSUPP)

		// Another mount finds the form by itself, below another upper that keeps owners as usual: not to root, in a form that
		// owners may write.
		o.unmount()
		if e.mode == modeRoot && strings.HasPrefix(attr, "user.") {
			return
		}
		o.lowers, o.opts = append([]string{o.upper}, o.lowers...), nil
		o.upper, o.work = filepath.Join(e.dir, "upper2"), filepath.Join(e.dir, "work2")
		mkdir(t, o.upper, o.work)
		o.mount()
		for name, want := range want {
			equal(t, name+" as a lower", owner(t, o.path(name)), want)
		}
		if e.mode == modeRoot { // in the namespace devices cannot be made
			for name := range want {
				check(t, os.Chmod(o.path(name), 0o604))
				now := lstat(t, o.path(name))
				onDisk := lstat(t, filepath.Join(o.upper, name))
				if now.Mode != onDisk.Mode || now.Uid != onDisk.Uid || now.Gid != onDisk.Gid || now.Rdev != onDisk.Rdev {
					t.Errorf("%s was copied up as %d:%d %o, and is %d:%d %o", name, onDisk.Uid, onDisk.Gid, onDisk.Mode, now.Uid, now.Gid, now.Mode)
				}
				equal(t, attr+" of "+name+" copied up", xattrOf(filepath.Join(o.upper, name), attr), "ENODATA")
			}
		}
	})
}

// A plain user's daemon, without any right: who uses the mount owns what he makes, and may not more than elsewhere.
func TestXattrPermissionsOfPlainUser(t *testing.T) {
	eachMode(t, []mode{modeFusermount}, func(t *testing.T, e *env) {
		o := e.overlay(t, "file f 0400 \"x\"")
		o.opts = append(o.opts, "xattr_permissions=2,squash_to_root=")
		out, err := o.tryMount()
		if err == nil || !strings.Contains(out, "takes no value") {
			t.Errorf("squash_to_root with a value: %v\n%s", err, out)
		}
		o.opts = []string{"xattr_permissions=2"}
		o.mount()
		check(t, os.Chmod(o.path("f"), 0o000))
		_, err = os.ReadFile(o.path("f"))
		wantErr(t, "reading a file of mode 0", err, syscall.EACCES)
		check(t, os.Chmod(o.path("f"), 0o600))
		appendTo(t, o.path("f"), "+")
		check(t, unix.Mknod(o.path("pipe"), unix.S_IFIFO|0o600, 0))
		wantErr(t, "mknod of a device", unix.Mknod(o.path("dev"), unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3))), syscall.EPERM)
		wantErr(t, "chown", os.Lchown(o.path("f"), 0, 0), syscall.EPERM)
		o.remount()
		wantText(t, o.path("f"), "x+")
		equal(t, "type of a fifo", lstat(t, o.path("pipe")).Mode&unix.S_IFMT, unix.S_IFIFO)
	})
}

// Attributes of namespace security. are kept under names that the daemon may write, and capabilities still go with a write.
func TestXattrPermissionsAndSecurity(t *testing.T) {
	eachMode(t, rootModes, func(t *testing.T, e *env) {
		o := e.overlay(t, "file caps 0777 \"x\"\nfile f 0777 \"x\"")
		sh(t, o.lowers[0], "setcap cap_net_raw+ep caps")
		o.opts = append(o.opts, "xattr_permissions=2")
		o.mount()
		value := xattrOf(o.path("caps"), "security.capability")
		sh(t, o.mnt, "setcap cap_net_raw+ep f")
		check(t, os.Chmod(o.path("caps"), 0o755))
		for _, name := range []string{"caps", "f"} {
			for range 2 {
				equal(t, "capabilities of "+name, xattrOf(o.path(name), "security.capability"), value)
				equal(t, "names of "+name, listNames(t, o.path(name)), "security.capability")
				equal(t, "on disk", xattrOf(filepath.Join(o.upper, name), "security.capability"), "ENODATA")
				equal(t, "on disk", xattrOf(filepath.Join(o.upper, name), "user.containers.override_security.capability"), value)
				o.remount()
			}
		}
		check(t, os.Chmod(o.path("f"), 0o777))
		as(t, 1000, 1000, func() { appendTo(t, o.path("f"), "+") })
		check(t, os.Lchown(o.path("caps"), 5, 5))
		for _, name := range []string{"caps", "f"} {
			equal(t, "capabilities of "+name+" after a change", xattrOf(o.path(name), "security.capability"), "ENODATA")
		}
		err := exec.Command("setfacl", "-m", "u:7:r", o.path("f")).Run()
		if err == nil {
			t.Error("an ACL was set, which the mode in the attribute would not follow")
		}
	})
}

// What a layer says of owner and mode must make sense, or nobody gets at the object; the rest of the tree is not affected.
func TestBadOverride(t *testing.T) {
	eachMode(t, rootModes, func(t *testing.T, e *env) {
		const attr = "user.containers.override_stat"
		o := e.overlay(t, "file good 0600 \"g\"\nfile bad 0600 \"b\"\nfile whiteout 0600\nfile d/in 0600")
		set := func(path, value string) {
			check(t, unix.Lsetxattr(filepath.Join(o.lowers[0], path), attr, []byte(value), 0))
		}
		set(".", "0:0:0755:dir")
		set("good", "5:6:0644:file")
		set("bad", "root:root:0644")
		set("whiteout", "0:0:0600:char-0-0")
		o.opts = append(o.opts, "xattr_permissions=2")
		o.mount()
		equal(t, "good", owner(t, o.path("good")), "5:6 0644")
		_, err := os.Lstat(o.path("bad"))
		wantErr(t, "an object whose owner cannot be told", err, syscall.EIO)
		wantAbsent(t, o.path("whiteout"))
		wantNames(t, o.mnt, "bad", "d", "good")
		wantErr(t, "chmod", os.Chmod(o.path("bad"), 0o777), syscall.EIO)
		wantText(t, o.path("d/in"), "")
	})
}

func TestTwoFormsOfPermissions(t *testing.T) {
	eachMode(t, onlyRoot, func(t *testing.T, e *env) {
		o := e.overlay(t, "file f")
		check(t, unix.Lsetxattr(o.upper, "user.containers.override_stat", []byte("0:0:0755:dir"), 0))
		o.opts = append(o.opts, "xattr_permissions=1")
		out, err := o.tryMount()
		if err == nil || !strings.Contains(out, "keeps owner and mode in another attribute than the one of xattr_permissions") {
			t.Errorf("an upper of another form: %v\n%s", err, out)
		}
		equal(t, "attribute of the refused upper", xattrOf(o.upper, "security.fuseoverlayfs.override_stat"), "ENODATA")
		o.opts = []string{"xattr_permissions=2"}
		o.mount()
		check(t, os.Lchown(o.path("f"), 5, 6))
		equal(t, "attribute", xattrOf(filepath.Join(o.upper, "f"), "user.containers.override_stat"), "5:6:0644:file")
	})
}

// The root of the tree keeps what the topmost layer says of it, as podman's storage has it.
func TestRootOfTheTreeKeepsItsMode(t *testing.T) {
	eachMode(t, rootModes, func(t *testing.T, e *env) {
		const attr = "user.containers.override_stat"
		o := e.overlay(t, "file f", "")
		check(t, unix.Lsetxattr(o.lowers[0], attr, []byte("3:4:0555:dir"), 0))
		o.opts = append(o.opts, "xattr_permissions=2")
		o.mount()
		equal(t, "the root", owner(t, o.mnt), "3:4 0555")
		equal(t, "its attribute", xattrOf(o.upper, attr), "3:4:0555:dir")
		check(t, os.Chmod(o.mnt, 0o711))
		o.remount()
		equal(t, "the root", owner(t, o.mnt), "3:4 0711")
	})
}
