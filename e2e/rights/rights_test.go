package rights

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// The tests of this file are the cells of the tables of docs/SECURITY.md: a mark of a layer, the
// users that may have written it, and its effect on a process that uses the mount.

// attacker is the user that owns a layer in the modes of root. caller is another user, which runs
// programs of that layer.
const attacker, caller = 1000, 1001

// runAs runs a program as a user, without capabilities, and returns its output. In ModeFusermount
// the user is the plain user.
func runAs(e *harness.Env, uid int, program string, args ...string) (string, error) {
	cmd := exec.Command(program, args...)
	if e.Mode != harness.ModeFusermount {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}}
	}
	out, err := cmd.Output()
	return strings.TrimSpace(string(out)), err
}

// effectiveCapabilities are the capabilities of a process that runs a copy of cat.
func effectiveCapabilities(t *testing.T, e *harness.Env, program string) string {
	t.Helper()
	out, err := runAs(e, caller, program, "/proc/self/status")
	harness.Check(t, err)
	for line := range strings.Lines(out) {
		if value, ok := strings.CutPrefix(line, "CapEff:"); ok {
			return strings.TrimSpace(value)
		}
	}
	t.Fatalf("no capabilities in\n%s", out)
	return ""
}

const noCapabilities = "0000000000000000"

// userID is the effective user id of a program whose set-user-id bit has no effect.
func userID(e *harness.Env) string {
	if e.Mode == harness.ModeFusermount {
		return strconv.Itoa(os.Getuid())
	}
	return strconv.Itoa(caller)
}

// opensZeros reports whether the caller can open a file as the device /dev/zero.
func opensZeros(e *harness.Env, path string) bool {
	out, _ := runAs(e, caller, "head", "-c", "1", path)
	return out == "\x00"
}

// netRaw is the value of security.capability for cap_net_raw+ep.
const netRaw = "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"

// overridingLayer makes a layer in which attributes give a program the set-user-id bit of root and
// another program capabilities, and make an empty file a device. All of it belongs to uid, and that
// user writes the attributes where that is possible.
func overridingLayer(t *testing.T, e *harness.Env, dir, attr string, uid int) {
	t.Helper()
	harness.Mkdir(t, dir)
	harness.Check(t, harness.CopyFile("/usr/bin/id", filepath.Join(dir, "setuid")))
	harness.Check(t, harness.CopyFile("/bin/cat", filepath.Join(dir, "capable")))
	harness.Build(t, e, dir, "file zero 0666")
	names := []string{"setuid", "capable", "zero", "."}
	set := func() {
		for name, value := range map[string]string{
			".": "0:0:0755:dir", "setuid": "0:0:04755:file", "zero": "0:0:0666:char-1-5", "capable": "0:0:0755:file",
		} {
			harness.Check(t, unix.Setxattr(filepath.Join(dir, name), attr, []byte(value), 0))
		}
		harness.Check(t, unix.Setxattr(filepath.Join(dir, "capable"), "user.containers.override_security.capability",
			[]byte(netRaw), 0))
	}
	if e.Mode == harness.ModeFusermount {
		set()
		return
	}
	for _, name := range names {
		harness.Check(t, os.Lchown(filepath.Join(dir, name), uid, uid))
	}
	if strings.HasPrefix(attr, "user.") {
		harness.As(t, uid, uid, set)
	} else {
		set()
	}
}

// An attribute of owner, mode, type or capabilities (override_stat) gives rights in two cases only:
// the users who may write it have these rights, or the mounting user has requested it.
func TestOverridesOfALayersOwner(t *testing.T) {
	harness.NeedDaemon(t)
	const (
		containers = "user.containers.override_stat"
		older      = "user.fuseoverlayfs.override_stat"
		privileged = "security.fuseoverlayfs.override_stat"
	)
	type cell struct {
		name, attr string
		uid        int
		opt        string
		counts     bool
	}
	cells := map[harness.Mode][]cell{
		harness.ModeRoot: {
			{"a user's layer", containers, attacker, "", false},
			{"a user's layer in the older form", older, attacker, "", false},
			{"a layer of root's", containers, 0, "", false},
			{"a user's layer, userxattr", containers, attacker, "userxattr", false},
			{"a user's layer, the other form asked for", containers, attacker, "xattr_permissions=1", false},
			{"a user's layer, asked for", containers, attacker, "xattr_permissions=2", true},
			{"a user's layer in the older form, asked for", older, attacker, "xattr_permissions=2", true},
			{"the form that only root may write", privileged, 0, "", true},
		},
		harness.ModeUserns: {
			{"another user's layer", containers, attacker, "", false},
			{"another user's layer in the older form", older, attacker, "", false},
			{"another user's layer, asked for", containers, attacker, "xattr_permissions=2", true},
			{"the namespace's root's layer", containers, 0, "", true},
			{"the namespace's root's layer in the older form", older, 0, "", true},
		},
		harness.ModeFusermount: {
			{"the user's own layer", containers, 0, "", true},
			{"the user's own layer, asked for", containers, 0, "xattr_permissions=2", true},
		},
	}
	harness.EachMode(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		if e.Mode != harness.ModeRoot {
			harness.WantErr(t, "setting "+privileged, unix.Setxattr(e.Dir, privileged, []byte("0:0:0755:dir"), 0), syscall.EPERM)
		}
		for _, c := range cells[e.Mode] {
			t.Run(c.name, func(t *testing.T) {
				e := harness.NewEnv(t, e.Mode)
				o := e.Overlay(t, "file beside 0644")
				layer := filepath.Join(e.Dir, "theirs")
				overridingLayer(t, e, layer, c.attr, c.uid)
				o.Lowers = append([]string{layer}, o.Lowers...)
				if c.opt != "" {
					o.Opts = append(o.Opts, c.opt)
				}
				o.Mount()
				wantRights(t, o, granted{c.counts, c.attr == containers})
				// A copy in the upper gives no more rights.
				for _, name := range []string{"setuid", "capable", "zero"} {
					if e.Mode == harness.ModeRoot || e.Mode == harness.ModeUserns && !(name == "zero" && c.counts) {
						harness.Check(t, os.Chtimes(o.Path(name), harness.OldTime, harness.OldTime))
					}
				}
				o.Remount()
				wantRights(t, o, granted{c.counts, c.attr == containers})
				log, err := os.ReadFile(o.Log)
				harness.Check(t, err)
				if warned := strings.Contains(string(log), "counts with xattr_permissions=2 only"); warned == c.counts {
					t.Errorf("the log warns: %v\n%s", warned, log)
				}
			})
		}
	})
}

// granted are the rights that the layer of overridingLayer gives in a mount.
type granted struct {
	owner        bool // set-user-id of root and the device
	capabilities bool
}

// wantRights fails the test unless the layer of overridingLayer gives these rights in the mount.
func wantRights(t *testing.T, o *harness.Overlay, want granted) {
	t.Helper()
	e := o.Env
	st := harness.Lstat(t, o.Path("setuid"))
	harness.Equal(t, "shown as of root with the set-user-id bit", st.Uid == 0 && st.Mode&0o7777 == 0o4755, want.owner)
	harness.Equal(t, "shown as a device", harness.Lstat(t, o.Path("zero")).Mode&unix.S_IFMT == unix.S_IFCHR, want.owner)
	inForce := want.owner && e.Mode != harness.ModeFusermount // whose mounts have nosuid and nodev
	id := userID(e)
	if inForce {
		id = "0"
	}
	got, err := runAs(e, caller, o.Path("setuid"), "-u")
	harness.Check(t, err)
	harness.Equal(t, "effective user id of the program", got, id)
	harness.Equal(t, "the program has capabilities", effectiveCapabilities(t, e, o.Path("capable")) != noCapabilities,
		inForce && want.capabilities)
	harness.Equal(t, "the device can be opened", opensZeros(e, o.Path("zero")), want.owner && e.Mode == harness.ModeRoot)
}

// An upper whose root has such an xattr is written in that form under the same conditions.
func TestOverridesOfAnUppersOwner(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.RootModes, func(t *testing.T, e *harness.Env) {
		for _, opt := range []string{"", "xattr_permissions=2"} {
			t.Run(opt, func(t *testing.T) {
				e := harness.NewEnv(t, e.Mode)
				o := e.Overlay(t, "file beside 0644")
				harness.Check(t, os.Remove(o.Upper))
				overridingLayer(t, e, o.Upper, "user.containers.override_stat", attacker)
				if opt != "" {
					o.Opts = append(o.Opts, opt)
				}
				o.Mount()
				counts := opt != ""
				wantRights(t, o, granted{counts, true})
				harness.Check(t, os.Chown(o.Path("beside"), 5, 6))
				onDisk := "5:6 0644"
				if counts {
					onDisk = "0:0 0600"
				}
				harness.Equal(t, "a copy on disk", harness.Owner(t, filepath.Join(o.Upper, "beside")), onDisk)
			})
		}
	})
}

// Redirects and metacopies may lead to objects that the owner of a layer may not read. So those
// that the owner may write are EPERM.
func TestRedirectsOfALayersOwner(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.RootModes, func(t *testing.T, e *harness.Env) {
		for uid, followed := range map[int]bool{attacker: false, 0: e.Mode == harness.ModeUserns} {
			t.Run(strconv.Itoa(uid), func(t *testing.T) {
				e := harness.NewEnv(t, e.Mode)
				o := e.Overlay(t, "", "dir secret 0700\nfile secret/key 0600 \"secret\"", "")
				top := o.Lowers[0]
				harness.Build(t, e, top, "dir d\nfile m 0644\nsize m 6\nfile data 0644\nsize data 6")
				for _, name := range []string{".", "d", "m", "data"} {
					harness.Check(t, os.Lchown(filepath.Join(top, name), uid, uid))
				}
				harness.As(t, uid, uid, func() {
					harness.Check(t, unix.Setxattr(filepath.Join(top, "d"), "user.overlay.redirect", []byte("/secret"), 0))
					for name, to := range map[string]string{"m": "/secret/key", "data": "/of/root"} {
						harness.Check(t, unix.Setxattr(filepath.Join(top, name), "user.overlay.metacopy", nil, 0))
						harness.Check(t, unix.Setxattr(filepath.Join(top, name), "user.overlay.redirect", []byte(to), 0))
					}
				})
				o.Data = []string{filepath.Join(e.Dir, "data-only")}
				harness.Build(t, e, o.Data[0], "file of/root 0600 \"secret\"")
				o.Opts = append(o.Opts, "metacopy=on")
				o.Mount()
				_, err := os.ReadDir(o.Path("d"))
				errs := map[string]error{"d": err}
				for _, name := range []string{"m", "data"} {
					_, errs[name] = os.ReadFile(o.Path(name))
				}
				for name, err := range errs {
					if followed {
						harness.Check(t, err)
					} else {
						harness.WantErr(t, name, err, syscall.EPERM)
					}
				}
			})
		}
	})
}

// Whiteouts and opaque xattrs give no other right: the object in place of a hidden one belongs to
// the layer's owner. Every form counts in every mode. Any user may make whiteout devices and marker
// files, and these count too.
func TestHidingByALayersOwner(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		o := e.Overlay(t, "", "file opaque/f\nfile device\nfile marker\nfile attribute")
		top := o.Lowers[0]
		harness.Build(t, e, top, "dir opaque\nfile attribute\nfile .wh.marker\nwhite device")
		names := []string{".", "opaque", "attribute", ".wh.marker"}
		set := func() {
			harness.Check(t, unix.Setxattr(filepath.Join(top, "opaque"), "user.overlay.opaque", []byte("y"), 0))
			harness.Check(t, unix.Setxattr(top, "user.overlay.opaque", []byte("x"), 0))
			harness.Check(t, unix.Setxattr(filepath.Join(top, "attribute"), "user.overlay.whiteout", nil, 0))
		}
		if e.Mode == harness.ModeFusermount {
			set()
		} else {
			for _, name := range names {
				harness.Check(t, os.Lchown(filepath.Join(top, name), attacker, attacker))
			}
			harness.As(t, attacker, attacker, set)
		}
		o.Mount()
		harness.WantNames(t, o.Point, "opaque")
		harness.WantNames(t, o.Path("opaque"))
	})
}

// An origin, a link count and an inode number give no rights. The daemon reads them in the
// namespace of the xattrs that it writes in the upper: for root trusted.
func TestOriginOfAnUppersOwner(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.OnlyRoot, func(t *testing.T, e *harness.Env) {
		o := e.Overlay(t, "file victim 0600 \"v\"\nlink victim2 victim")
		o.Opts = append(o.Opts, "index=on")
		o.Mount()
		harness.Check(t, os.Chmod(o.Path("victim"), 0o640))
		number := harness.Lstat(t, o.Path("victim")).Ino
		o.Unmount()
		value, err := harness.GetXattr(filepath.Join(o.Upper, "victim"), "trusted.overlay.origin")
		harness.Check(t, err)
		harness.Write(t, filepath.Join(o.Upper, "mine"), "m")
		harness.Check(t, os.Chown(filepath.Join(o.Upper, "mine"), attacker, attacker))
		harness.As(t, attacker, attacker, func() {
			for name, value := range map[string]string{"origin": value, "nlink": "U+7", "impure": "y", "protattr": "i"} {
				harness.Check(t, unix.Setxattr(filepath.Join(o.Upper, "mine"), "user.overlay."+name, []byte(value), 0))
			}
		})
		o.Mount()
		st := harness.Lstat(t, o.Path("mine"))
		if st.Ino == number || st.Nlink != 1 {
			t.Errorf("a file with another's origin has number %d, link count %d; the other has %d", st.Ino, st.Nlink, number)
		}
		harness.AppendTo(t, o.Path("mine"), "+")
		harness.WantText(t, o.Path("victim"), "v")
		harness.WantText(t, o.Path("victim2"), "v")
	})
}
