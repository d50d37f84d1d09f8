package rights

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// overrides are the values of xattr_permissions that a mode may use, and the xattr of each.
func overrides(m harness.Mode) map[string]string {
	forms := map[string]string{"2": "user.containers.override_stat"}
	if m == harness.ModeRoot {
		forms["1"] = "security.fuseoverlayfs.override_stat"
	}
	return forms
}

func eachOverride(t *testing.T, modes []harness.Mode, fn func(t *testing.T, e *harness.Env, attr string)) {
	t.Helper()
	harness.EachMode(t, modes, func(t *testing.T, e *harness.Env) {
		for value, attr := range overrides(e.Mode) {
			harness.WithOption(t, e.Mode, "xattr_permissions="+value, func(t *testing.T, e *harness.Env) { fn(t, e, attr) })
		}
	})
}

// Owner, mode, type and device number are an xattr. The file itself belongs to the daemon, and is
// only a plain file to other mounts and programs.
func TestXattrPermissions(t *testing.T) {
	eachOverride(t, harness.RootModes, func(t *testing.T, e *harness.Env, attr string) {
		o := e.Mounted(t, "dir open 1777\nfile lower 0644 \"data\"\nown lower 3 4\nfifo pipe 0600\nsymlink link lower")
		harness.As(t, 1000, 1001, func() {
			harness.Check(t, os.WriteFile(o.Path("open/file"), []byte("mine"), 0o640))
			harness.Check(t, os.Mkdir(o.Path("open/dir"), 0o755))
			harness.Check(t, unix.Mknod(o.Path("open/fifo"), unix.S_IFIFO|0o640, 0))
			harness.Check(t, unix.Mknod(o.Path("open/sock"), unix.S_IFSOCK|0o600, 0))
			harness.Check(t, os.Symlink("target", o.Path("open/link")))
		})
		harness.Check(t, os.Lchown(o.Path("lower"), 33, 34))
		harness.Check(t, os.Chmod(o.Path("lower"), 0o751|os.ModeSetuid))
		harness.Check(t, os.Chmod(o.Path("pipe"), 0o666))
		harness.Check(t, os.Link(o.Path("open/fifo"), o.Path("open/fifo2")))
		harness.Check(t, os.Rename(o.Path("open/sock"), o.Path("open/socket")))
		want := map[string]string{
			"open/file": "1000:1001 0640", "open/dir": "1000:1001 0755", "open/fifo": "1000:1001 0640",
			"open/fifo2":  "1000:1001 0640",
			"open/socket": "1000:1001 0600", "lower": "33:34 4751", "pipe": "0:0 0666",
		}
		text := map[string]string{
			"open": "0:0:01777:dir", "open/file": "1000:1001:0640:file", "open/dir": "1000:1001:0755:dir",
			"open/fifo":   "1000:1001:0640:pipe",
			"open/socket": "1000:1001:0600:socket", "lower": "33:34:04751:file", "pipe": "0:0:0666:pipe", ".": "0:0:0755:dir",
		}
		if e.Mode == harness.ModeRoot {
			harness.Check(t, unix.Mknod(o.Path("open/null"), unix.S_IFCHR|0o644, int(unix.Mkdev(1, 3))))
			harness.Check(t, unix.Mknod(o.Path("open/disk"), unix.S_IFBLK|0o640, int(unix.Mkdev(259, 300))))
			harness.Check(t, os.WriteFile(o.Path("open/null"), []byte("gone"), 0))
			want["open/null"], text["open/null"] = "0:0 0644", "0:0:0644:char-1-3"
			want["open/disk"], text["open/disk"] = "0:0 0640", "0:0:0640:block-259-300"
		}
		for range 2 {
			for name, want := range want {
				harness.Equal(t, name, harness.Owner(t, o.Path(name)), want)
			}
			for name, want := range text {
				path := filepath.Join(o.Upper, name)
				harness.Equal(t, attr+" of "+name, harness.XattrOf(path, attr), want)
				harness.Equal(t, attr+" of "+name+" in the mount", harness.XattrOf(o.Path(name), attr), "ENODATA")
				st := harness.Lstat(t, path)
				if kind := st.Mode & unix.S_IFMT; name != "." && (st.Uid != 0 || st.Mode&0o7077 != 0 || kind != unix.S_IFREG &&
					kind != unix.S_IFDIR) {
					t.Errorf("%s is on disk %d:%d %o", name, st.Uid, st.Gid, st.Mode)
				}
			}
			if d := harness.IdentityFaults(o.Point); d != "" {
				t.Error("what is listed is not what is there: ", d)
			}
			harness.WantText(t, o.Path("open/file"), "mine")
			harness.WantText(t, o.Path("lower"), "data")
			harness.As(t, 1000, 1000, func() {
				_, err := os.ReadFile(o.Path("lower"))
				harness.WantErr(t, "reading another's file", err, syscall.EACCES)
			})
			o.Remount()
		}
		harness.WantErr(t, "setting the attribute", unix.Lsetxattr(o.Path("open/file"), attr, []byte("0:0:04777:file"), 0),
			syscall.EPERM, syscall.EOPNOTSUPP)

		// Another mount recognises the form below an upper that keeps owners in inodes. A mount by root
		// ignores a form that owners may write.
		o.Unmount()
		if e.Mode == harness.ModeRoot && strings.HasPrefix(attr, "user.") {
			return
		}
		o.Lowers, o.Opts = append([]string{o.Upper}, o.Lowers...), nil
		o.Upper, o.Work = filepath.Join(e.Dir, "upper2"), filepath.Join(e.Dir, "work2")
		harness.Mkdir(t, o.Upper, o.Work)
		o.Mount()
		for name, want := range want {
			harness.Equal(t, name+" as a lower", harness.Owner(t, o.Path(name)), want)
		}
		if e.Mode == harness.ModeRoot { // in the namespace devices cannot be made
			for name := range want {
				harness.Check(t, os.Chmod(o.Path(name), 0o604))
				now := harness.Lstat(t, o.Path(name))
				onDisk := harness.Lstat(t, filepath.Join(o.Upper, name))
				if now.Mode != onDisk.Mode || now.Uid != onDisk.Uid || now.Gid != onDisk.Gid || now.Rdev != onDisk.Rdev {
					t.Errorf("%s was copied up as %d:%d %o, and is %d:%d %o", name, onDisk.Uid, onDisk.Gid, onDisk.Mode, now.Uid,
						now.Gid, now.Mode)
				}
				harness.Equal(t, attr+" of "+name+" copied up", harness.XattrOf(filepath.Join(o.Upper, name), attr), "ENODATA")
			}
		}
	})
}

// The daemon of a plain user has no capabilities. A user of the mount owns new objects, and has no
// more rights than elsewhere.
func TestXattrPermissionsOfPlainUser(t *testing.T) {
	harness.EachMode(t, []harness.Mode{harness.ModeFusermount}, func(t *testing.T, e *harness.Env) {
		o := e.Overlay(t, "file f 0400 \"x\"")
		o.Opts = append(o.Opts, "xattr_permissions=2,squash_to_root=")
		out, err := o.TryMount()
		if err == nil || !strings.Contains(out, "takes no value") {
			t.Errorf("squash_to_root with a value: %v\n%s", err, out)
		}
		o.Opts = []string{"xattr_permissions=2"}
		o.Mount()
		harness.Check(t, os.Chmod(o.Path("f"), 0o000))
		_, err = os.ReadFile(o.Path("f"))
		harness.WantErr(t, "reading a file of mode 0", err, syscall.EACCES)
		harness.Check(t, os.Chmod(o.Path("f"), 0o600))
		harness.AppendTo(t, o.Path("f"), "+")
		harness.Check(t, unix.Mknod(o.Path("pipe"), unix.S_IFIFO|0o600, 0))
		harness.WantErr(t, "mknod of a device", unix.Mknod(o.Path("dev"), unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3))),
			syscall.EPERM)
		harness.WantErr(t, "chown", os.Lchown(o.Path("f"), 0, 0), syscall.EPERM)
		o.Remount()
		harness.WantText(t, o.Path("f"), "x+")
		harness.Equal(t, "type of a fifo", harness.Lstat(t, o.Path("pipe")).Mode&unix.S_IFMT, unix.S_IFIFO)
	})
}

// xattrs of the namespace security. are stored under names that the daemon may write. A write still
// drops capabilities.
func TestXattrPermissionsAndSecurity(t *testing.T) {
	harness.EachMode(t, harness.RootModes, func(t *testing.T, e *harness.Env) {
		o := e.Overlay(t, "file caps 0777 \"x\"\nfile f 0777 \"x\"")
		harness.Shell(t, o.Lowers[0], "setcap cap_net_raw+ep caps")
		o.Opts = append(o.Opts, "xattr_permissions=2")
		o.Mount()
		value := harness.XattrOf(o.Path("caps"), "security.capability")
		harness.Shell(t, o.Point, "setcap cap_net_raw+ep f")
		harness.Check(t, os.Chmod(o.Path("caps"), 0o755))
		for _, name := range []string{"caps", "f"} {
			for range 2 {
				harness.Equal(t, "capabilities of "+name, harness.XattrOf(o.Path(name), "security.capability"), value)
				harness.Equal(t, "names of "+name, listNames(t, o.Path(name)), "security.capability")
				harness.Equal(t, "on disk", harness.XattrOf(filepath.Join(o.Upper, name), "security.capability"), "ENODATA")
				harness.Equal(t, "on disk", harness.XattrOf(filepath.Join(o.Upper, name),
					"user.containers.override_security.capability"), value)
				o.Remount()
			}
		}
		harness.Check(t, os.Chmod(o.Path("f"), 0o777))
		harness.As(t, 1000, 1000, func() { harness.AppendTo(t, o.Path("f"), "+") })
		harness.Check(t, os.Lchown(o.Path("caps"), 5, 5))
		for _, name := range []string{"caps", "f"} {
			harness.Equal(t, "capabilities of "+name+" after a change", harness.XattrOf(o.Path(name), "security.capability"),
				"ENODATA")
		}
		err := exec.Command("setfacl", "-m", "u:7:r", o.Path("f")).Run()
		if err == nil {
			t.Error("an ACL was set, which the mode in the attribute would not follow")
		}
	})
}

// An object with an invalid xattr of owner and mode cannot be used. Other objects can.
func TestBadOverride(t *testing.T) {
	harness.EachMode(t, harness.RootModes, func(t *testing.T, e *harness.Env) {
		const attr = "user.containers.override_stat"
		o := e.Overlay(t, "file good 0600 \"g\"\nfile bad 0600 \"b\"\nfile whiteout 0600\nfile d/in 0600")
		set := func(path, value string) {
			harness.Check(t, unix.Lsetxattr(filepath.Join(o.Lowers[0], path), attr, []byte(value), 0))
		}
		set(".", "0:0:0755:dir")
		set("good", "5:6:0644:file")
		set("bad", "root:root:0644")
		set("whiteout", "0:0:0600:char-0-0")
		o.Opts = append(o.Opts, "xattr_permissions=2")
		o.Mount()
		harness.Equal(t, "good", harness.Owner(t, o.Path("good")), "5:6 0644")
		_, err := os.Lstat(o.Path("bad"))
		harness.WantErr(t, "an object with an invalid owner", err, syscall.EIO)
		harness.WantAbsent(t, o.Path("whiteout"))
		harness.WantNames(t, o.Point, "bad", "d", "good")
		harness.WantErr(t, "chmod", os.Chmod(o.Path("bad"), 0o777), syscall.EIO)
		harness.WantText(t, o.Path("d/in"), "")
	})
}

func TestTwoFormsOfPermissions(t *testing.T) {
	harness.EachMode(t, harness.OnlyRoot, func(t *testing.T, e *harness.Env) {
		o := e.Overlay(t, "file f")
		harness.Check(t, unix.Lsetxattr(o.Upper, "user.containers.override_stat", []byte("0:0:0755:dir"), 0))
		o.Opts = append(o.Opts, "xattr_permissions=1")
		out, err := o.TryMount()
		if err == nil || !strings.Contains(out, "keeps owner and mode in another attribute than the one of xattr_permissions") {
			t.Errorf("an upper of another form: %v\n%s", err, out)
		}
		harness.Equal(t, "attribute of the refused upper", harness.XattrOf(o.Upper, "security.fuseoverlayfs.override_stat"),
			"ENODATA")
		o.Opts = []string{"xattr_permissions=2"}
		o.Mount()
		harness.Check(t, os.Lchown(o.Path("f"), 5, 6))
		harness.Equal(t, "attribute", harness.XattrOf(filepath.Join(o.Upper, "f"), "user.containers.override_stat"),
			"5:6:0644:file")
	})
}

// The root of the mount has the mode of the topmost layer, as podman's storage needs it.
func TestRootOfTheTreeKeepsItsMode(t *testing.T) {
	harness.EachMode(t, harness.RootModes, func(t *testing.T, e *harness.Env) {
		const attr = "user.containers.override_stat"
		o := e.Overlay(t, "file f", "")
		harness.Check(t, unix.Lsetxattr(o.Lowers[0], attr, []byte("3:4:0555:dir"), 0))
		o.Opts = append(o.Opts, "xattr_permissions=2")
		o.Mount()
		harness.Equal(t, "the root", harness.Owner(t, o.Point), "3:4 0555")
		harness.Equal(t, "its attribute", harness.XattrOf(o.Upper, attr), "3:4:0555:dir")
		harness.Check(t, os.Chmod(o.Point, 0o711))
		o.Remount()
		harness.Equal(t, "the root", harness.Owner(t, o.Point), "3:4 0711")
	})
}
