package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func owner(t *testing.T, path string) string {
	t.Helper()
	st := lstat(t, path)
	return fmt.Sprintf("%d:%d %04o", st.Uid, st.Gid, st.Mode&0o7777)
}

// The kernel checks the caller against the merged view; the layers are reached with the daemon's rights.
func TestPermissions(t *testing.T) {
	eachMode(t, rootModes, func(t *testing.T, e *env) {
		o := e.mounted(t, `
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
		asGroups(t, 1000, 1000, []uint32{1002}, func() {
			_, err := os.ReadFile(o.path("secret"))
			wantErr(t, "reading another's file", err, syscall.EACCES)
			_, err = os.ReadFile(o.path("closed/f"))
			wantErr(t, "a path through a closed directory", err, syscall.EACCES)
			wantText(t, o.path("theirs"), "t")
			wantText(t, o.path("group"), "g")
			wantErr(t, "chmod of another's file", os.Chmod(o.path("group"), 0o666), syscall.EPERM)
			wantErr(t, "chown", os.Lchown(o.path("theirs"), 1001, 1000), syscall.EPERM)
			wantErr(t, "sticky: another's file", os.Remove(o.path("sticky/root")), syscall.EPERM)
			wantErr(t, "sticky: rename over another's", os.Rename(o.path("sticky/user"), o.path("sticky/root")), syscall.EPERM)
			check(t, os.Remove(o.path("sticky/user")))
			wantErr(t, "create in another's directory", os.WriteFile(o.path("new"), nil, 0o644), syscall.EACCES)
			_, err = os.OpenFile(o.path("open/f"), os.O_WRONLY, 0)
			wantErr(t, "writing a read-only file", err, syscall.EACCES)
			check(t, os.Remove(o.path("open/f"))) // the directory is what counts
			appendTo(t, o.path("theirs"), "+")
			check(t, os.WriteFile(o.path("open/mine"), nil, 0o666))
			check(t, os.Mkdir(o.path("open/dir"), 0o777))
			check(t, os.Symlink("x", o.path("open/link")))
			check(t, unix.Mknod(o.path("open/fifo"), unix.S_IFIFO|0o600, 0))
		})
		for name, want := range map[string]string{"mine": "1000:1000 0644", "dir": "1000:1000 0755", "link": "1000:1000 0777", "fifo": "1000:1000 0600"} {
			equal(t, "owner of a new "+name, owner(t, o.path("open/"+name)), want)
			equal(t, "owner of a new "+name+" in the upper", owner(t, filepath.Join(o.upper, "open", name)), want)
		}
		equal(t, "owner after copy-up", owner(t, filepath.Join(o.upper, "theirs")), "1000:1000 0600")
	})
}

func TestSetgidDirectories(t *testing.T) {
	eachMode(t, rootModes, func(t *testing.T, e *env) {
		o := e.mounted(t, "dir s 2777\nown s 0 1002\ndir s/sub 2777\nown s/sub 0 1003")
		as(t, 1000, 1000, func() {
			for _, d := range []string{"s", "s/sub"} {
				check(t, os.WriteFile(o.path(d+"/file"), nil, 0o666))
				check(t, syscall.Mkdir(o.path(d+"/dir"), 0o777))
				check(t, os.Symlink("x", o.path(d+"/link")))
				check(t, unix.Mknod(o.path(d+"/fifo"), unix.S_IFIFO|0o644, 0))
				check(t, syscall.Mkdir(o.path(d+"/dir/deeper"), 0o700))
			}
		})
		for d, gid := range map[string]int{"s": 1002, "s/sub": 1003} {
			for name, mode := range map[string]string{"file": "0644", "dir": "2755", "link": "0777", "fifo": "0644", "dir/deeper": "2700"} {
				want := fmt.Sprintf("1000:%d %s", gid, mode)
				equal(t, d+"/"+name, owner(t, o.path(d+"/"+name)), want)
				equal(t, d+"/"+name+" in the upper", owner(t, filepath.Join(o.upper, d, name)), want)
			}
		}
		// A group that the caller is not in takes the setgid bit of an executable away.
		as(t, 1000, 1000, func() {
			check(t, os.WriteFile(o.path("s/x"), nil, 0o666))
			check(t, syscall.Chmod(o.path("s/x"), 0o2755))
		})
		equal(t, "chmod g+s by a stranger to the group", owner(t, o.path("s/x")), "1000:1002 0755")
	})
}

// A write, truncate or chown by a caller without the right drops suid, sgid and file capabilities.
func TestPrivilegeDropping(t *testing.T) {
	eachIO(t, rootModes, func(t *testing.T, e *env) {
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
			"append":   func(p string) error { return appendErr(p) },
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
		o := e.overlay(t, "dir x")
		build(t, e, o.lowers[0], table)
		for name := range changes {
			for _, layer := range []string{"low", "root"} {
				p := filepath.Join(o.lowers[0], name+"-"+layer)
				check(t, os.Chmod(p, 0o777|os.ModeSetuid|os.ModeSetgid)) // chown took them away
				sh(t, o.lowers[0], fmt.Sprintf("setcap cap_net_raw+ep cap-%s-%s", name, layer))
			}
		}
		o.mount()
		for name, change := range changes {
			for _, file := range []string{name + "-low", "cap-" + name + "-low"} {
				as(t, 1000, 1000, func() {
					if err := change(o.path(file)); err != nil {
						t.Errorf("%s: %v", file, err)
					}
				})
			}
			if err := change(o.path(name + "-root")); err != nil {
				t.Errorf("%s by root: %v", name, err)
			}
		}
		for range 2 {
			for name := range changes {
				equal(t, name+" by a user: mode", modeAlone(t, o.path(name+"-low")), 0o777)
				equal(t, name+" by a user", owner(t, o.path(name+"-low")), "0:0 0777")
				kept := "0:0 6777"
				if e.mode == modeUserns {
					kept = "0:0 0777" // root of a user namespace lacks the right, on every file system
				}
				equal(t, name+" by root", owner(t, o.path(name+"-root")), kept)
				equal(t, name+": file capability", xattrOf(o.path("cap-"+name+"-low"), "security.capability"), "ENODATA")
			}
			o.remount()
		}
	})
}

// modeAlone asks for the mode and no more, as exec and permission checks do: for size and times, which a write makes it
// doubt, the kernel would ask the daemon, and learn the mode as well.
func modeAlone(t *testing.T, path string) uint16 {
	t.Helper()
	var st unix.Statx_t
	check(t, unix.Statx(unix.AT_FDCWD, path, unix.AT_SYMLINK_NOFOLLOW, unix.STATX_MODE, &st))
	return st.Mode & 0o7777
}

func appendErr(p string) error {
	f, err := os.OpenFile(p, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString("more")
	if e := f.Close(); err == nil {
		err = e
	}
	return err
}

// Copy-up by another keeps what a file is: suid, capabilities, owner.
func TestCopyUpKeepsPrivileges(t *testing.T) {
	eachMode(t, rootModes, func(t *testing.T, e *env) {
		o := e.overlay(t, "file suid 0755 \"x\"\nown suid 1000 1000\nfile caps 0755 \"x\"\nfile linked 0755 \"x\"")
		check(t, os.Chmod(filepath.Join(o.lowers[0], "suid"), 0o755|os.ModeSetuid|os.ModeSetgid))
		sh(t, o.lowers[0], "setcap cap_net_raw+ep caps")
		o.mount()
		caps := xattrOf(o.path("caps"), "security.capability")
		for _, name := range []string{"suid", "caps"} {
			check(t, setTimes(o.path(name), oldTime)) // a change that drops nothing
			check(t, os.Rename(o.path(name), o.path(name+"2")))
		}
		for range 2 {
			equal(t, "suid", owner(t, o.path("suid2")), "1000:1000 6755")
			equal(t, "caps", xattrOf(o.path("caps2"), "security.capability"), caps)
			o.remount()
		}
		// chown drops them, even by root, as on every file system.
		check(t, os.Lchown(o.path("suid2"), 1001, 1001))
		check(t, os.Lchown(o.path("caps2"), 1001, 1001))
		equal(t, "suid after chown", owner(t, o.path("suid2")), "1001:1001 0755")
		equal(t, "caps after chown", xattrOf(o.path("caps2"), "security.capability"), "ENODATA")
	})
}
