package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// Ids are shown as others, and what is made or changed is stored under those of the layers.
func TestIDMapping(t *testing.T) {
	eachMode(t, onlyRoot, func(t *testing.T, e *env) {
		o := e.overlay(t, `
			file zero 0644 "z"
			file five 4755 "f"
			own five 5 6
			dir group 2777
			own group 0 7
			dir open 0777
			file far 0644 "far"
			own far 70000 80000
			symlink link five
			own link 8 9`)
		o.opts = append(o.opts, "uidmapping=:0:200000:65536", "gidmapping=:0:300000:65536")
		check(t, os.Chmod(filepath.Join(o.lowers[0], "five"), 0o755|os.ModeSetuid)) // chown took it away
		o.mount()
		for name, want := range map[string]string{
			"zero": "200000:300000 0644", "five": "200005:300006 4755", "group": "200000:300007 2777",
			"far": "65534:65534 0644", "link": "200008:300009 0777",
		} {
			equal(t, name, owner(t, o.path(name)), want)
		}
		as(t, 200005, 300006, func() {
			appendTo(t, o.path("five"), "+")
			check(t, os.WriteFile(o.path("open/mine"), nil, 0o640))
			check(t, os.WriteFile(o.path("group/inherits"), nil, 0o640))
			check(t, os.Mkdir(o.path("group/dir"), 0o750))
			check(t, os.Symlink("x", o.path("open/symlink")))
		})
		as(t, 99, 99, func() { check(t, os.WriteFile(o.path("open/nobody"), nil, 0o640)) }) // has no id on disk
		check(t, os.Lchown(o.path("zero"), 200033, -1))
		check(t, os.Lchown(o.path("link"), 200001, 300001))
		check(t, os.Chmod(o.path("far"), 0o600)) // a copy-up of what the mount cannot show
		for range 2 {
			for name, want := range map[string]string{
				"five": "200005:300006 0755", "open/mine": "200005:300006 0640", "group/inherits": "200005:300007 0640",
				"group/dir": "200005:300007 2750", "open/symlink": "200005:300006 0777", "zero": "200033:300000 0644",
				"link": "200001:300001 0777", "open/nobody": "265534:365534 0640", "far": "65534:65534 0600",
			} {
				equal(t, name, owner(t, o.path(name)), want)
			}
			o.remount()
		}
		for name, want := range map[string]string{
			"five": "5:6 0755", "open/mine": "5:6 0640", "group/inherits": "5:7 0640", "group/dir": "5:7 2750",
			"open/symlink": "5:6 0777", "zero": "33:0 0644", "link": "1:1 0777", "open/nobody": "65534:65534 0640",
			"far": "70000:80000 0600", // not the overflow id
		} {
			equal(t, name+" on disk", owner(t, filepath.Join(o.upper, name)), want)
		}
	})
}

// Ids lie in values of attributes too.
func TestIDMappingOfValues(t *testing.T) {
	eachMode(t, onlyRoot, func(t *testing.T, e *env) {
		o := e.overlay(t, "file f 0640 \"x\"\nown f 5 6\ndir d 0777\nfile caps 0755 \"x\"")
		sh(t, o.lowers[0], "setfacl -m u:7:r,g:8:r f; setfacl -d -m u:7:rwx d")
		o.opts = append(o.opts, "uidmapping=0:200000:65536", "gidmapping=0:300000:65536")
		o.mount()
		for _, want := range []string{"user:200007:r--", "group:300008:r--"} {
			if acl := sh(t, o.mnt, "getfacl -n f"); !strings.Contains(acl, want) {
				t.Errorf("no %s in the ACL:\n%s", want, acl)
			}
		}
		as(t, 200007, 300001, func() { wantText(t, o.path("f"), "x") })
		sh(t, o.mnt, "setfacl -m u:200009:rw f; touch d/new")
		if acl := sh(t, o.upper, "getfacl -n f d/new"); !strings.Contains(acl, "user:9:rw-") || strings.Count(acl, "user:7:r") != 2 {
			t.Errorf("on disk the ACLs are:\n%s", acl)
		}
		// Capabilities for the root of a container are, on disk, for its root too.
		caps := "\x01\x00\x00\x03\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x40\x0d\x03\x00" // root 200000
		check(t, unix.Lsetxattr(o.path("caps"), "security.capability", []byte(caps), 0))
		equal(t, "capabilities on disk", xattrOf(filepath.Join(o.upper, "caps"), "security.capability"), "\x01\x00\x00\x02"+caps[4:20])
	})
}

// The mapping of podman's --userns=keep-id, in the user namespace that it makes.
func TestIDMappingInUserNamespace(t *testing.T) {
	eachMode(t, rootModes, func(t *testing.T, e *env) {
		o := e.overlay(t, "file root\nfile user\nown user 1001 1001\nfile other\nown other 1500 1500\ndir open 0777")
		keep := "mapping=:0:1:1001:1001:0:1:1002:1002:64534"
		o.opts = append(o.opts, "uid"+keep, "gid"+keep)
		o.mount()
		equal(t, "root's", owner(t, o.path("root")), "1:1 0644")
		equal(t, "the user's", owner(t, o.path("user")), "0:0 0644")
		equal(t, "another's", owner(t, o.path("other")), "1500:1500 0644")
		check(t, os.WriteFile(o.path("open/new"), nil, 0o644))
		equal(t, "mine", owner(t, o.path("open/new")), "0:0 0644")
		equal(t, "mine on disk", owner(t, filepath.Join(o.upper, "open/new")), "1001:1001 0644")
	})
}

// With squash_to_* everything belongs to one id, and who may not give files away can still change everything.
func TestSquash(t *testing.T) {
	eachMode(t, allModes, func(t *testing.T, e *env) {
		o := e.overlay(t, "dir open 0777\nfile f 0666 \"x\"")
		if e.mode == modeFusermount {
			o.lowers = append(o.lowers, foreignLower(t))
		} else {
			build(t, e, o.lowers[0], "file theirs 0666 \"t\"\nown theirs 3 4")
		}
		o.opts = append(o.opts, "squash_to_uid=7,squash_to_gid=8")
		o.mount()
		equal(t, "a lower's", owner(t, o.path("theirs"))[:4], "7:8 ")
		appendTo(t, o.path("theirs"), "+")
		check(t, os.WriteFile(o.path("open/new"), nil, 0o644))
		if e.mode != modeFusermount { // there the kernel asks who may
			check(t, os.Lchown(o.path("open/new"), 33, 33)) // is no error, as tar and dpkg would have it
		}
		for range 2 {
			wantText(t, o.path("theirs"), "t+")
			equal(t, "a lower's", owner(t, o.path("theirs"))[:4], "7:8 ")
			equal(t, "new", owner(t, o.path("open/new")), "7:8 0644")
			equal(t, "the root", owner(t, o.mnt)[:4], "7:8 ")
			o.remount()
		}
		onDisk := "7:8 0644"
		if e.mode == modeFusermount {
			onDisk = fmt.Sprintf("%d:%d 0644", os.Getuid(), os.Getgid())
		}
		equal(t, "new on disk", owner(t, filepath.Join(o.upper, "open/new")), onDisk)
	})
}

// foreignLower is a lower of root's that a plain user may read: a file in the folder of the run.
func foreignLower(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(base, "foreign")
	wantText(t, filepath.Join(dir, "theirs"), "t")
	return dir
}

func TestSquashToRoot(t *testing.T) {
	eachMode(t, rootModes, func(t *testing.T, e *env) {
		o := e.overlay(t, "file f 0644\nown f 3 4")
		o.opts = append(o.opts, "squash_to_root")
		o.mount()
		equal(t, "owner", owner(t, o.path("f")), "0:0 0644")
		check(t, os.Lchown(o.path("f"), 5, 5))
		equal(t, "owner", owner(t, o.path("f")), "0:0 0644")
		equal(t, "owner on disk", owner(t, filepath.Join(o.upper, "f")), "0:0 0644")
	})
}

func TestSmallInodeNumbers(t *testing.T) {
	eachMode(t, allModes, func(t *testing.T, e *env) {
		o := e.overlay(t, "dir d\nfile d/f\nfile g", "file h")
		o.opts = append(o.opts, "ino32_t")
		o.mount()
		seen := map[uint64]string{}
		check(t, filepath.WalkDir(o.mnt, func(path string, _ os.DirEntry, err error) error {
			check(t, err)
			st := lstat(t, path)
			if st.Ino>>32 != 0 {
				t.Errorf("%s has number %d", path, st.Ino)
			}
			if other, ok := seen[st.Ino]; ok {
				t.Errorf("%s and %s have number %d", path, other, st.Ino)
			}
			seen[st.Ino] = path
			return nil
		}))
		equal(t, "objects", len(seen), 5)
	})
}

// A mount of the tree may map ids itself (FUSE_ALLOW_IDMAP, Linux 6.12).
func TestIdmappedMountOfTheTree(t *testing.T) {
	eachMode(t, onlyRoot, func(t *testing.T, e *env) {
		o := e.mounted(t, "file f 0644 \"x\"\nown f 5 6\ndir open 0777\nfile suid 4777 \"s\"")
		// A user namespace is the kernel's notation of a mapping.
		holder := exec.Command("sleep", "60")
		holder.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags:  syscall.CLONE_NEWUSER,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: 400000, Size: 65536}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: 500000, Size: 65536}},
		}
		check(t, holder.Start())
		defer func() { _ = holder.Process.Kill(); _ = holder.Wait() }()
		userns := open(t, fmt.Sprintf("/proc/%d/ns/user", holder.Process.Pid), os.O_RDONLY)
		defer userns.Close()
		tree, err := unix.OpenTree(unix.AT_FDCWD, o.mnt, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
		check(t, err)
		attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(userns.Fd())}
		check(t, unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH, &attr))
		view := fmt.Sprintf("/proc/self/fd/%d", tree)
		equal(t, "a lower's file", owner(t, view+"/f"), "400005:500006 0644")
		as(t, 400005, 500006, func() {
			appendTo(t, view+"/f", "+")
			check(t, os.WriteFile(view+"/open/mine", nil, 0o640))
			check(t, os.Mkdir(view+"/open/dir", 0o750))
			check(t, os.Symlink("x", view+"/open/link"))
			check(t, os.Chmod(view+"/open/mine", 0o600))
		})
		for name, want := range map[string]string{"f": "0644", "open/mine": "0600", "open/dir": "0750", "open/link": "0777"} {
			equal(t, name, owner(t, view+"/"+name), "400005:500006 "+want)
			equal(t, name+" without mapping", owner(t, o.path(name)), "5:6 "+want)
			equal(t, name+" on disk", owner(t, filepath.Join(o.upper, name)), "5:6 "+want)
		}
		// Without a mapping everything is as before, also what only root may: keep a suid bit.
		check(t, os.Chmod(o.path("suid"), 0o777|os.ModeSetuid))
		allocate := func(bytes int64) {
			f := open(t, o.path("suid"), os.O_RDWR)
			defer f.Close()
			check(t, unix.Fallocate(int(f.Fd()), 0, 0, bytes))
		}
		allocate(10)
		equal(t, "fallocate by root", owner(t, o.path("suid")), "0:0 4777")
		as(t, 1000, 1000, func() { allocate(20) })
		equal(t, "fallocate by another", owner(t, o.path("suid")), "0:0 0777")
		check(t, unix.Close(tree)) // which keeps the daemon
		o.unmount()
	})
}
