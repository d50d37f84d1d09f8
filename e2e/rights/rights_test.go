package e2e

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// The tests of this file are the cells of the tables of docs/SECURITY.md: a mark of a layer, the
// users that may have written it, and its effect on a process that uses the mount.

// attacker is the user that owns a layer in the modes of root. caller is another user, which runs
// programs of that layer.
const attacker, caller = 1000, 1001

// runAs runs a program as a user, without capabilities, and returns its output. A plain user's test runs it as that user.
func runAs(e *env, uid int, program string, args ...string) (string, error) {
	cmd := exec.Command(program, args...)
	if e.mode != modeFusermount {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}}
	}
	out, err := cmd.Output()
	return strings.TrimSpace(string(out)), err
}

// effectiveCapabilities is what a copy of cat gets when it is run.
func effectiveCapabilities(t *testing.T, e *env, program string) string {
	t.Helper()
	out, err := runAs(e, caller, program, "/proc/self/status")
	check(t, err)
	for line := range strings.Lines(out) {
		if value, ok := strings.CutPrefix(line, "CapEff:"); ok {
			return strings.TrimSpace(value)
		}
	}
	t.Fatalf("no capabilities in\n%s", out)
	return ""
}

const noCapabilities = "0000000000000000"

// userID is the id of the user that a file with the set-user-id bit does not change.
func userID(e *env) string {
	if e.mode == modeFusermount {
		return strconv.Itoa(os.Getuid())
	}
	return strconv.Itoa(caller)
}

// opensZeros reports whether a file is the device /dev/zero to the caller, and can be opened as that.
func opensZeros(e *env, path string) bool {
	out, _ := runAs(e, caller, "head", "-c", "1", path)
	return out == "\x00"
}

// netRaw is the value of security.capability for cap_net_raw+ep.
const netRaw = "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"

// overridingLayer makes a layer in which attributes give a program the set-user-id bit of root and
// another program capabilities, and make an empty file a device. All of it belongs to uid, and that
// user writes the attributes where that is possible.
func overridingLayer(t *testing.T, e *env, dir, attr string, uid int) {
	t.Helper()
	mkdir(t, dir)
	check(t, copyFile("/usr/bin/id", filepath.Join(dir, "setuid")))
	check(t, copyFile("/bin/cat", filepath.Join(dir, "capable")))
	build(t, e, dir, "file zero 0666")
	names := []string{"setuid", "capable", "zero", "."}
	set := func() {
		for name, value := range map[string]string{
			".": "0:0:0755:dir", "setuid": "0:0:04755:file", "zero": "0:0:0666:char-1-5", "capable": "0:0:0755:file",
		} {
			check(t, unix.Setxattr(filepath.Join(dir, name), attr, []byte(value), 0))
		}
		check(t, unix.Setxattr(filepath.Join(dir, "capable"), "user.containers.override_security.capability", []byte(netRaw), 0))
	}
	if e.mode == modeFusermount {
		set()
		return
	}
	for _, name := range names {
		check(t, os.Lchown(filepath.Join(dir, name), uid, uid))
	}
	if strings.HasPrefix(attr, "user.") {
		as(t, uid, uid, set)
	} else {
		set()
	}
}

// An attribute of owner, mode, type or capabilities (override_stat) gives rights in two cases only:
// the users who may write it have these rights, or the mounting user has requested it.
func TestOverridesOfALayersOwner(t *testing.T) {
	needDaemon(t)
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
	cells := map[mode][]cell{
		modeRoot: {
			{"a user's layer", containers, attacker, "", false},
			{"a user's layer in the older form", older, attacker, "", false},
			{"a layer of root's", containers, 0, "", false},
			{"a user's layer, userxattr", containers, attacker, "userxattr", false},
			{"a user's layer, the other form asked for", containers, attacker, "xattr_permissions=1", false},
			{"a user's layer, asked for", containers, attacker, "xattr_permissions=2", true},
			{"a user's layer in the older form, asked for", older, attacker, "xattr_permissions=2", true},
			{"the form that only root may write", privileged, 0, "", true},
		},
		modeUserns: {
			{"another user's layer", containers, attacker, "", false},
			{"another user's layer in the older form", older, attacker, "", false},
			{"another user's layer, asked for", containers, attacker, "xattr_permissions=2", true},
			{"the namespace's root's layer", containers, 0, "", true},
			{"the namespace's root's layer in the older form", older, 0, "", true},
		},
		modeFusermount: {
			{"the user's own layer", containers, 0, "", true},
			{"the user's own layer, asked for", containers, 0, "xattr_permissions=2", true},
		},
	}
	eachMode(t, allModes, func(t *testing.T, e *env) {
		if e.mode != modeRoot {
			wantErr(t, "setting "+privileged, unix.Setxattr(e.dir, privileged, []byte("0:0:0755:dir"), 0), syscall.EPERM)
		}
		for _, c := range cells[e.mode] {
			t.Run(c.name, func(t *testing.T) {
				e := newEnv(t, e.mode)
				o := e.overlay(t, "file beside 0644")
				layer := filepath.Join(e.dir, "theirs")
				overridingLayer(t, e, layer, c.attr, c.uid)
				o.lowers = append([]string{layer}, o.lowers...)
				if c.opt != "" {
					o.opts = append(o.opts, c.opt)
				}
				o.mount()
				wantRights(t, o, c.counts, c.attr == containers)
				// Nor does more come of a copy in the upper.
				for _, name := range []string{"setuid", "capable", "zero"} {
					if e.mode == modeRoot || e.mode == modeUserns && !(name == "zero" && c.counts) {
						check(t, os.Chtimes(o.path(name), oldTime, oldTime))
					}
				}
				o.remount()
				wantRights(t, o, c.counts, c.attr == containers)
				log, err := os.ReadFile(o.log)
				check(t, err)
				if warned := strings.Contains(string(log), "counts with xattr_permissions=2 only"); warned == c.counts {
					t.Errorf("the log warns: %v\n%s", warned, log)
				}
			})
		}
	})
}

// wantRights compares what the layer of overridingLayer gives in the mount.
func wantRights(t *testing.T, o *overlay, counts bool, capabilities bool) {
	t.Helper()
	e := o.env
	st := lstat(t, o.path("setuid"))
	equal(t, "shown as of root with the set-user-id bit", st.Uid == 0 && st.Mode&0o7777 == 0o4755, counts)
	equal(t, "shown as a device", lstat(t, o.path("zero")).Mode&unix.S_IFMT == unix.S_IFCHR, counts)
	inForce := counts && e.mode != modeFusermount // whose mounts have nosuid and nodev
	want := userID(e)
	if inForce {
		want = "0"
	}
	got, err := runAs(e, caller, o.path("setuid"), "-u")
	check(t, err)
	equal(t, "effective user id of the program", got, want)
	equal(t, "the program has capabilities", effectiveCapabilities(t, e, o.path("capable")) != noCapabilities, inForce && capabilities)
	equal(t, "the device can be opened", opensZeros(e, o.path("zero")), counts && e.mode == modeRoot)
}

// An upper whose root has such an attribute goes on in that form under the same conditions.
func TestOverridesOfAnUppersOwner(t *testing.T) {
	needDaemon(t)
	eachMode(t, rootModes, func(t *testing.T, e *env) {
		for _, opt := range []string{"", "xattr_permissions=2"} {
			t.Run(opt, func(t *testing.T) {
				e := newEnv(t, e.mode)
				o := e.overlay(t, "file beside 0644")
				check(t, os.Remove(o.upper))
				overridingLayer(t, e, o.upper, "user.containers.override_stat", attacker)
				if opt != "" {
					o.opts = append(o.opts, opt)
				}
				o.mount()
				counts := opt != ""
				wantRights(t, o, counts, true)
				check(t, os.Chown(o.path("beside"), 5, 6))
				onDisk := "5:6 0644"
				if counts {
					onDisk = "0:0 0600"
				}
				equal(t, "a copy on disk", owner(t, filepath.Join(o.upper, "beside")), onDisk)
			})
		}
	})
}

// Redirects and metacopies lead to what the owner of a layer may not read, so those that the owner may write are EPERM.
func TestRedirectsOfALayersOwner(t *testing.T) {
	needDaemon(t)
	eachMode(t, rootModes, func(t *testing.T, e *env) {
		for uid, followed := range map[int]bool{attacker: false, 0: e.mode == modeUserns} {
			t.Run(strconv.Itoa(uid), func(t *testing.T) {
				e := newEnv(t, e.mode)
				o := e.overlay(t, "", "dir secret 0700\nfile secret/key 0600 \"secret\"", "")
				top := o.lowers[0]
				build(t, e, top, "dir d\nfile m 0644\nsize m 6\nfile data 0644\nsize data 6")
				for _, name := range []string{".", "d", "m", "data"} {
					check(t, os.Lchown(filepath.Join(top, name), uid, uid))
				}
				as(t, uid, uid, func() {
					check(t, unix.Setxattr(filepath.Join(top, "d"), "user.overlay.redirect", []byte("/secret"), 0))
					for name, to := range map[string]string{"m": "/secret/key", "data": "/of/root"} {
						check(t, unix.Setxattr(filepath.Join(top, name), "user.overlay.metacopy", nil, 0))
						check(t, unix.Setxattr(filepath.Join(top, name), "user.overlay.redirect", []byte(to), 0))
					}
				})
				o.data = []string{filepath.Join(e.dir, "data-only")}
				build(t, e, o.data[0], "file of/root 0600 \"secret\"")
				o.opts = append(o.opts, "metacopy=on")
				o.mount()
				_, err := os.ReadDir(o.path("d"))
				errs := map[string]error{"d": err}
				for _, name := range []string{"m", "data"} {
					_, errs[name] = os.ReadFile(o.path(name))
				}
				for name, err := range errs {
					if followed {
						check(t, err)
					} else {
						wantErr(t, name, err, syscall.EPERM)
					}
				}
			})
		}
	})
}

// Marks that hide names give no other right: the object in place of a hidden one belongs to the
// layer's owner. Every form counts in every mode. Any user may make whiteout devices and marker
// files, and these count too.
func TestHidingByALayersOwner(t *testing.T) {
	needDaemon(t)
	eachMode(t, allModes, func(t *testing.T, e *env) {
		o := e.overlay(t, "", "file opaque/f\nfile device\nfile marker\nfile attribute")
		top := o.lowers[0]
		build(t, e, top, "dir opaque\nfile attribute\nfile .wh.marker\nwhite device")
		names := []string{".", "opaque", "attribute", ".wh.marker"}
		set := func() {
			check(t, unix.Setxattr(filepath.Join(top, "opaque"), "user.overlay.opaque", []byte("y"), 0))
			check(t, unix.Setxattr(top, "user.overlay.opaque", []byte("x"), 0))
			check(t, unix.Setxattr(filepath.Join(top, "attribute"), "user.overlay.whiteout", nil, 0))
		}
		if e.mode == modeFusermount {
			set()
		} else {
			for _, name := range names {
				check(t, os.Lchown(filepath.Join(top, name), attacker, attacker))
			}
			as(t, attacker, attacker, set)
		}
		o.mount()
		wantNames(t, o.mnt, "opaque")
		wantNames(t, o.path("opaque"))
	})
}

// An origin, a link count and an inode number give no rights. The daemon reads them in the
// namespace of attributes that it writes in the upper: for root trusted.
func TestOriginOfAnUppersOwner(t *testing.T) {
	needDaemon(t)
	eachMode(t, onlyRoot, func(t *testing.T, e *env) {
		o := e.overlay(t, "file victim 0600 \"v\"\nlink victim2 victim")
		o.opts = append(o.opts, "index=on")
		o.mount()
		check(t, os.Chmod(o.path("victim"), 0o640))
		number := lstat(t, o.path("victim")).Ino
		o.unmount()
		value, err := getXattr(filepath.Join(o.upper, "victim"), "trusted.overlay.origin")
		check(t, err)
		write(t, filepath.Join(o.upper, "mine"), "m")
		check(t, os.Chown(filepath.Join(o.upper, "mine"), attacker, attacker))
		as(t, attacker, attacker, func() {
			for name, value := range map[string]string{"origin": value, "nlink": "U+7", "impure": "y", "protattr": "i"} {
				check(t, unix.Setxattr(filepath.Join(o.upper, "mine"), "user.overlay."+name, []byte(value), 0))
			}
		})
		o.mount()
		st := lstat(t, o.path("mine"))
		if st.Ino == number || st.Nlink != 1 {
			t.Errorf("a file with another's origin has number %d, link count %d; the other has %d", st.Ino, st.Nlink, number)
		}
		appendTo(t, o.path("mine"), "+")
		wantText(t, o.path("victim"), "v")
		wantText(t, o.path("victim2"), "v")
	})
}

// A work directory that another user has prepared is the daemon's own before anything is made in it.
func TestWorkDirectoryOfAnother(t *testing.T) {
	needDaemon(t)
	eachMode(t, rootModes, func(t *testing.T, e *env) {
		o := e.overlay(t, "file f 0644 \"x\"\nlink g f")
		for _, dir := range []string{"", "work", "index"} {
			path := filepath.Join(o.work, dir)
			mkdir(t, path)
			check(t, os.Chown(path, attacker, attacker))
			check(t, unix.Chmod(path, 0o777))
		}
		open := open(t, filepath.Join(o.work, "work"), os.O_RDONLY)
		o.opts = append(o.opts, "index=on")
		o.mount()
		as(t, attacker, attacker, func() {
			for _, dir := range []string{filepath.Join(o.work, "work"), filepath.Join(o.work, "index")} {
				wantErr(t, "making a file in "+dir, os.WriteFile(filepath.Join(dir, "mine"), nil, 0o644), syscall.EACCES)
			}
			_, err := unix.Openat(int(open.Fd()), "mine", unix.O_CREAT|unix.O_WRONLY, 0o644)
			wantErr(t, "making a file by a descriptor", err, syscall.EACCES)
		})
		appendTo(t, o.path("f"), "+")
		wantText(t, o.path("g"), "x+")
	})
}

// Capabilities that root of a user namespace may write are for that namespace only, in the mount as on the layer.
func TestCapabilitiesOfANamespacesRoot(t *testing.T) {
	needDaemon(t)
	eachMode(t, onlyRoot, func(t *testing.T, e *env) {
		o := e.overlay(t, "")
		program := filepath.Join(o.lowers[0], "capable")
		check(t, copyFile("/bin/cat", program))
		check(t, os.Chown(program, plainUser.uid, plainUser.gid))
		cmd := exec.Command("unshare", "--user", "--map-root-user", "setcap", "cap_net_raw+ep", program)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(plainUser.uid), Gid: uint32(plainUser.gid)}}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		o.mount()
		for range 2 {
			if value := xattrOf(o.path("capable"), "security.capability"); !bytes.HasPrefix([]byte(value), []byte("\x01\x00\x00\x03")) {
				t.Errorf("capabilities in the mount: %q, want those of a namespace's root", value)
			}
			equal(t, "capabilities of the program", effectiveCapabilities(t, e, o.path("capable")), noCapabilities)
			check(t, os.Chtimes(o.path("capable"), oldTime, oldTime)) // a copy in the upper
			o.remount()
		}
	})
}

// The flags of the mount count, not those of the file systems that its layers lie on, as with the kernel's overlayfs.
func TestMountFlagsOfLayers(t *testing.T) {
	eachMode(t, onlyRoot, func(t *testing.T, e *env) {
		o := e.overlay(t, "")
		layer := o.lowers[0]
		check(t, unix.Mount("layer", layer, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755"))
		t.Cleanup(func() { _ = unix.Unmount(layer, unix.MNT_DETACH) })
		check(t, copyFile("/usr/bin/id", filepath.Join(layer, "setuid")))
		build(t, e, layer, "char zero 1/5 0666")
		check(t, os.Chmod(filepath.Join(layer, "setuid"), 0o755|os.ModeSetuid))
		for _, nosuid := range []bool{false, true} {
			if nosuid {
				o.unmount()
				o.opts = append(o.opts, "nosuid", "nodev")
				o.kernelFlags |= unix.MS_NOSUID | unix.MS_NODEV
			}
			o.mount()
			want := "0"
			if nosuid {
				want = userID(e)
			}
			got, err := runAs(e, caller, o.path("setuid"), "-u")
			check(t, err)
			equal(t, "effective user id", got, want)
			equal(t, "the device can be opened", opensZeros(e, o.path("zero")), !nosuid)
		}
		o.unmount()
	})
}
