package rights

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// The kernel checks the caller against the merged tree. The daemon opens layers with its own
// rights.
func TestPermissions(t *testing.T) {
	harness.EachMode(t, harness.RootModes, func(t *testing.T, e *harness.Env) {
		o := e.Mounted(t, `
			file secret 0600 "s"
			dir closed 0700
			file closed/f 0666 "x"
			file theirs 0600 "t"
			own theirs 1000 1000
			file group 0640 "g"
			own group 0 1002
			dir sticky 1777
			file sticky/root 0666 "r"
			file sticky/user 0666 "u"
			own sticky/user 1000 1000
			dir open 0777
			file open/f 0444 "f"`)
		harness.AsGroups(t, 1000, 1000, []uint32{1002}, func() {
			_, err := os.ReadFile(o.Path("secret"))
			harness.WantErr(t, "reading another's file", err, syscall.EACCES)
			_, err = os.ReadFile(o.Path("closed/f"))
			harness.WantErr(t, "a path through a closed directory", err, syscall.EACCES)
			harness.WantText(t, o.Path("theirs"), "t")
			harness.WantText(t, o.Path("group"), "g")
			harness.WantErr(t, "chmod of another's file", os.Chmod(o.Path("group"), 0o666), syscall.EPERM)
			harness.WantErr(t, "chown", os.Lchown(o.Path("theirs"), 1001, 1000), syscall.EPERM)
			harness.WantErr(t, "sticky: another's file", os.Remove(o.Path("sticky/root")), syscall.EPERM)
			harness.WantErr(t, "sticky: rename over another's", os.Rename(o.Path("sticky/user"), o.Path("sticky/root")),
				syscall.EPERM)
			harness.Check(t, os.Remove(o.Path("sticky/user")))
			harness.WantErr(t, "create in another's directory", os.WriteFile(o.Path("new"), nil, 0o644), syscall.EACCES)
			_, err = os.OpenFile(o.Path("open/f"), os.O_WRONLY, 0)
			harness.WantErr(t, "writing a read-only file", err, syscall.EACCES)
			harness.Check(t, os.Remove(o.Path("open/f"))) // the directory is what counts
			harness.AppendTo(t, o.Path("theirs"), "+")
			harness.Check(t, os.WriteFile(o.Path("open/mine"), nil, 0o666))
			harness.Check(t, os.Mkdir(o.Path("open/dir"), 0o777))
			harness.Check(t, os.Symlink("x", o.Path("open/link")))
			harness.Check(t, unix.Mknod(o.Path("open/fifo"), unix.S_IFIFO|0o600, 0))
		})
		for name, want := range map[string]string{"mine": "1000:1000 0644", "dir": "1000:1000 0755",
			"link": "1000:1000 0777", "fifo": "1000:1000 0600"} {
			harness.Equal(t, "owner of a new "+name, harness.Owner(t, o.Path("open/"+name)), want)
			harness.Equal(t, "owner of a new "+name+" in the upper", harness.Owner(t, filepath.Join(o.Upper, "open", name)),
				want)
		}
		harness.Equal(t, "owner after copy-up", harness.Owner(t, filepath.Join(o.Upper, "theirs")), "1000:1000 0600")
	})
}

func TestSetgidDirectories(t *testing.T) {
	harness.EachMode(t, harness.RootModes, func(t *testing.T, e *harness.Env) {
		o := e.Mounted(t, "dir s 2777\nown s 0 1002\ndir s/sub 2777\nown s/sub 0 1003")
		harness.As(t, 1000, 1000, func() {
			for _, d := range []string{"s", "s/sub"} {
				harness.Check(t, os.WriteFile(o.Path(d+"/file"), nil, 0o666))
				harness.Check(t, syscall.Mkdir(o.Path(d+"/dir"), 0o777))
				harness.Check(t, os.Symlink("x", o.Path(d+"/link")))
				harness.Check(t, unix.Mknod(o.Path(d+"/fifo"), unix.S_IFIFO|0o644, 0))
				harness.Check(t, syscall.Mkdir(o.Path(d+"/dir/deeper"), 0o700))
			}
		})
		for d, gid := range map[string]int{"s": 1002, "s/sub": 1003} {
			for name, mode := range map[string]string{"file": "0644", "dir": "2755", "link": "0777", "fifo": "0644",
				"dir/deeper": "2700"} {
				want := fmt.Sprintf("1000:%d %s", gid, mode)
				harness.Equal(t, d+"/"+name, harness.Owner(t, o.Path(d+"/"+name)), want)
				harness.Equal(t, d+"/"+name+" in the upper", harness.Owner(t, filepath.Join(o.Upper, d, name)), want)
			}
		}
		// A chown to a group without the caller clears the setgid bit of an executable.
		harness.As(t, 1000, 1000, func() {
			harness.Check(t, os.WriteFile(o.Path("s/x"), nil, 0o666))
			harness.Check(t, syscall.Chmod(o.Path("s/x"), 0o2755))
		})
		harness.Equal(t, "chmod g+s by a stranger to the group", harness.Owner(t, o.Path("s/x")), "1000:1002 0755")
	})
}

// A write, truncate or chown by a caller without the right drops suid, sgid and file capabilities.
func TestPrivilegeDropping(t *testing.T) {
	harness.EachIO(t, harness.RootModes, func(t *testing.T, e *harness.Env) {
		changes := map[string]func(path string) error{
			"write": func(p string) error {
				f, err := os.OpenFile(p, os.O_WRONLY, 0)
				if err != nil {
					return err
				}
				_, err = f.WriteString("new")
				if e := f.Close(); err == nil {
					err = e
				}
				return err
			},
			"append":   func(p string) error { return harness.AppendErr(p) },
			"truncate": func(p string) error { return os.Truncate(p, 1) },
			"otrunc":   func(p string) error { return os.WriteFile(p, []byte("n"), 0) },
			"fallocate": func(p string) error {
				f, err := os.OpenFile(p, os.O_WRONLY, 0)
				if err != nil {
					return err
				}
				defer f.Close()
				return unix.Fallocate(int(f.Fd()), 0, 0, 100)
			},
		}
		var table string
		for name := range changes {
			for _, layer := range []string{"low", "root"} {
				table += fmt.Sprintf("file %s-%s 6777 \"text\"\nown %s-%s 0 0\n", name, layer, name, layer)
				table = table + fmt.Sprintf("file cap-%s-%s 0777 \"text\"\n", name, layer)
			}
		}
		o := e.Overlay(t, "dir x")
		harness.Build(t, e, o.Lowers[0], table)
		for name := range changes {
			for _, layer := range []string{"low", "root"} {
				p := filepath.Join(o.Lowers[0], name+"-"+layer)
				harness.Check(t, os.Chmod(p, 0o777|os.ModeSetuid|os.ModeSetgid)) // chown took them away
				harness.Shell(t, o.Lowers[0], fmt.Sprintf("setcap cap_net_raw+ep cap-%s-%s", name, layer))
			}
		}
		o.Mount()
		for name, change := range changes {
			for _, file := range []string{name + "-low", "cap-" + name + "-low"} {
				harness.As(t, 1000, 1000, func() {
					if err := change(o.Path(file)); err != nil {
						t.Errorf("%s: %v", file, err)
					}
				})
			}
			if err := change(o.Path(name + "-root")); err != nil {
				t.Errorf("%s by root: %v", name, err)
			}
		}
		for range 2 {
			for name := range changes {
				harness.Equal(t, name+" by a user: mode", harness.ModeAlone(t, o.Path(name+"-low")), 0o777)
				harness.Equal(t, name+" by a user", harness.Owner(t, o.Path(name+"-low")), "0:0 0777")
				kept := "0:0 6777"
				if e.Mode == harness.ModeUserns {
					kept = "0:0 0777" // root of a user namespace lacks the right, on every file system
				}
				harness.Equal(t, name+" by root", harness.Owner(t, o.Path(name+"-root")), kept)
				harness.Equal(t, name+": file capability", harness.XattrOf(o.Path("cap-"+name+"-low"), "security.capability"),
					"ENODATA")
			}
			o.Remount()
		}
	})
}

// A copy-up by another user keeps suid, capabilities and the owner.
func TestCopyUpKeepsPrivileges(t *testing.T) {
	harness.EachMode(t, harness.RootModes, func(t *testing.T, e *harness.Env) {
		o := e.Overlay(t, "file suid 0755 \"x\"\nown suid 1000 1000\nfile caps 0755 \"x\"\nfile linked 0755 \"x\"")
		harness.Check(t, os.Chmod(filepath.Join(o.Lowers[0], "suid"), 0o755|os.ModeSetuid|os.ModeSetgid))
		harness.Shell(t, o.Lowers[0], "setcap cap_net_raw+ep caps")
		o.Mount()
		caps := harness.XattrOf(o.Path("caps"), "security.capability")
		for _, name := range []string{"suid", "caps"} {
			harness.Check(t, harness.SetTimes(o.Path(name), harness.OldTime)) // a change that drops nothing
			harness.Check(t, os.Rename(o.Path(name), o.Path(name+"2")))
		}
		for range 2 {
			harness.Equal(t, "suid", harness.Owner(t, o.Path("suid2")), "1000:1000 6755")
			harness.Equal(t, "caps", harness.XattrOf(o.Path("caps2"), "security.capability"), caps)
			o.Remount()
		}
		// chown drops capabilities, even for root, as on every file system.
		harness.Check(t, os.Lchown(o.Path("suid2"), 1001, 1001))
		harness.Check(t, os.Lchown(o.Path("caps2"), 1001, 1001))
		harness.Equal(t, "suid after chown", harness.Owner(t, o.Path("suid2")), "1001:1001 0755")
		harness.Equal(t, "caps after chown", harness.XattrOf(o.Path("caps2"), "security.capability"), "ENODATA")
	})
}
