package rights

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// The mount shows mapped ids, and stores the ids of the layers for new and changed objects.
func TestIDMapping(t *testing.T) {
	harness.EachMode(t, harness.OnlyRoot, func(t *testing.T, e *harness.Env) {
		o := e.Overlay(t, `
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
		o.Opts = append(o.Opts, "uidmapping=:0:200000:65536", "gidmapping=:0:300000:65536")
		harness.Check(t, os.Chmod(filepath.Join(o.Lowers[0], "five"), 0o755|os.ModeSetuid)) // chown took it away
		o.Mount()
		for name, want := range map[string]string{
			"zero": "200000:300000 0644", "five": "200005:300006 4755", "group": "200000:300007 2777",
			"far": "65534:65534 0644", "link": "200008:300009 0777",
		} {
			harness.Equal(t, name, harness.Owner(t, o.Path(name)), want)
		}
		harness.As(t, 200005, 300006, func() {
			harness.AppendTo(t, o.Path("five"), "+")
			harness.Check(t, os.WriteFile(o.Path("open/mine"), nil, 0o640))
			harness.Check(t, os.WriteFile(o.Path("group/inherits"), nil, 0o640))
			harness.Check(t, os.Mkdir(o.Path("group/dir"), 0o750))
			harness.Check(t, os.Symlink("x", o.Path("open/symlink")))
		})
		// Has no id on disk.
		harness.As(t, 99, 99, func() { harness.Check(t, os.WriteFile(o.Path("open/nobody"), nil, 0o640)) })
		harness.Check(t, os.Lchown(o.Path("zero"), 200033, -1))
		harness.Check(t, os.Lchown(o.Path("link"), 200001, 300001))
		harness.Check(t, os.Chmod(o.Path("far"), 0o600)) // a copy-up of what the mount cannot show
		for range 2 {
			for name, want := range map[string]string{
				"five": "200005:300006 0755", "open/mine": "200005:300006 0640", "group/inherits": "200005:300007 0640",
				"group/dir": "200005:300007 2750", "open/symlink": "200005:300006 0777", "zero": "200033:300000 0644",
				"link": "200001:300001 0777", "open/nobody": "265534:365534 0640", "far": "65534:65534 0600",
			} {
				harness.Equal(t, name, harness.Owner(t, o.Path(name)), want)
			}
			o.Remount()
		}
		for name, want := range map[string]string{
			"five": "5:6 0755", "open/mine": "5:6 0640", "group/inherits": "5:7 0640", "group/dir": "5:7 2750",
			"open/symlink": "5:6 0777", "zero": "33:0 0644", "link": "1:1 0777", "open/nobody": "65534:65534 0640",
			"far": "70000:80000 0600", // not the overflow id
		} {
			harness.Equal(t, name+" on disk", harness.Owner(t, filepath.Join(o.Upper, name)), want)
		}
	})
}

// The values of ACLs and capabilities contain ids too.
func TestIDMappingOfValues(t *testing.T) {
	harness.EachMode(t, harness.OnlyRoot, func(t *testing.T, e *harness.Env) {
		o := e.Overlay(t, "file f 0640 \"x\"\nown f 5 6\ndir d 0777\nfile caps 0755 \"x\"")
		harness.Shell(t, o.Lowers[0], "setfacl -m u:7:r,g:8:r f; setfacl -d -m u:7:rwx d")
		o.Opts = append(o.Opts, "uidmapping=0:200000:65536", "gidmapping=0:300000:65536")
		o.Mount()
		for _, want := range []string{"user:200007:r--", "group:300008:r--"} {
			if acl := harness.Shell(t, o.Point, "getfacl -n f"); !strings.Contains(acl, want) {
				t.Errorf("no %s in the ACL:\n%s", want, acl)
			}
		}
		harness.As(t, 200007, 300001, func() { harness.WantText(t, o.Path("f"), "x") })
		harness.Shell(t, o.Point, "setfacl -m u:200009:rw f; touch d/new")
		if acl := harness.Shell(t, o.Upper, "getfacl -n f d/new"); !strings.Contains(acl, "user:9:rw-") ||
			strings.Count(acl, "user:7:r") != 2 {
			t.Errorf("on disk the ACLs are:\n%s", acl)
		}
		// On disk too, capabilities are for the root of the container.
		// Root 200000.
		caps := "\x01\x00\x00\x03\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x40\x0d\x03\x00"
		harness.Check(t, unix.Lsetxattr(o.Path("caps"), "security.capability", []byte(caps), 0))
		harness.Equal(t, "capabilities on disk", harness.XattrOf(filepath.Join(o.Upper, "caps"), "security.capability"),
			"\x01\x00\x00\x02"+caps[4:20])
	})
}

// The mapping of podman's --userns=keep-id works in the user namespace that podman makes.
func TestIDMappingInUserNamespace(t *testing.T) {
	harness.EachMode(t, harness.RootModes, func(t *testing.T, e *harness.Env) {
		o := e.Overlay(t, "file root\nfile user\nown user 1001 1001\nfile other\nown other 1500 1500\ndir open 0777")
		keep := "mapping=:0:1:1001:1001:0:1:1002:1002:64534"
		o.Opts = append(o.Opts, "uid"+keep, "gid"+keep)
		o.Mount()
		harness.Equal(t, "root's", harness.Owner(t, o.Path("root")), "1:1 0644")
		harness.Equal(t, "the user's", harness.Owner(t, o.Path("user")), "0:0 0644")
		harness.Equal(t, "another's", harness.Owner(t, o.Path("other")), "1500:1500 0644")
		harness.Check(t, os.WriteFile(o.Path("open/new"), nil, 0o644))
		harness.Equal(t, "mine", harness.Owner(t, o.Path("open/new")), "0:0 0644")
		harness.Equal(t, "mine on disk", harness.Owner(t, filepath.Join(o.Upper, "open/new")), "1001:1001 0644")
	})
}

// With squash_to_* all objects belong to one id. A daemon that may not chown can still change all
// of them.
func TestSquash(t *testing.T) {
	harness.EachMode(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		o := e.Overlay(t, "dir open 0777\nfile f 0666 \"x\"")
		if e.Mode == harness.ModeFusermount {
			o.Lowers = append(o.Lowers, foreignLower(t))
		} else {
			harness.Build(t, e, o.Lowers[0], "file theirs 0666 \"t\"\nown theirs 3 4")
		}
		o.Opts = append(o.Opts, "squash_to_uid=7,squash_to_gid=8")
		o.Mount()
		harness.Equal(t, "a lower's", harness.Owner(t, o.Path("theirs"))[:4], "7:8 ")
		harness.AppendTo(t, o.Path("theirs"), "+")
		harness.Check(t, os.WriteFile(o.Path("open/new"), nil, 0o644))
		if e.Mode != harness.ModeFusermount { // there the kernel checks the permission
			harness.Check(t, os.Lchown(o.Path("open/new"), 33, 33)) // returns no error, as tar and dpkg expect
		}
		for range 2 {
			harness.WantText(t, o.Path("theirs"), "t+")
			harness.Equal(t, "a lower's", harness.Owner(t, o.Path("theirs"))[:4], "7:8 ")
			harness.Equal(t, "new", harness.Owner(t, o.Path("open/new")), "7:8 0644")
			harness.Equal(t, "the root", harness.Owner(t, o.Point)[:4], "7:8 ")
			o.Remount()
		}
		onDisk := "7:8 0644"
		if e.Mode == harness.ModeFusermount {
			onDisk = fmt.Sprintf("%d:%d 0644", os.Getuid(), os.Getgid())
		}
		harness.Equal(t, "new on disk", harness.Owner(t, filepath.Join(o.Upper, "open/new")), onDisk)
	})
}

// foreignLower is a lower of root that a plain user may read.
func foreignLower(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(harness.RunDir, "foreign")
	harness.WantText(t, filepath.Join(dir, "theirs"), "t")
	return dir
}

func TestSquashToRoot(t *testing.T) {
	harness.EachMode(t, harness.RootModes, func(t *testing.T, e *harness.Env) {
		o := e.Overlay(t, "file f 0644\nown f 3 4")
		o.Opts = append(o.Opts, "squash_to_root")
		o.Mount()
		harness.Equal(t, "owner", harness.Owner(t, o.Path("f")), "0:0 0644")
		harness.Check(t, os.Lchown(o.Path("f"), 5, 5))
		harness.Equal(t, "owner", harness.Owner(t, o.Path("f")), "0:0 0644")
		harness.Equal(t, "owner on disk", harness.Owner(t, filepath.Join(o.Upper, "f")), "0:0 0644")
	})
}

func TestSmallInodeNumbers(t *testing.T) {
	harness.EachMode(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		o := e.Overlay(t, "dir d\nfile d/f\nfile g", "file h")
		o.Opts = append(o.Opts, "ino32_t")
		o.Mount()
		seen := map[uint64]string{}
		harness.Check(t, filepath.WalkDir(o.Point, func(path string, _ os.DirEntry, err error) error {
			harness.Check(t, err)
			st := harness.Lstat(t, path)
			if st.Ino>>32 != 0 {
				t.Errorf("%s has number %d", path, st.Ino)
			}
			if other, ok := seen[st.Ino]; ok {
				t.Errorf("%s and %s have number %d", path, other, st.Ino)
			}
			seen[st.Ino] = path
			return nil
		}))
		harness.Equal(t, "objects", len(seen), 5)
	})
}

// A mount of the tree may map ids itself (FUSE_ALLOW_IDMAP, Linux 6.12).
func TestIdmappedMountOfTheTree(t *testing.T) {
	if !harness.KernelAtLeast(t, 6, 12) {
		t.Skip("FUSE allows mounts with mapped ids from Linux 6.12 on")
	}
	harness.EachMode(t, harness.OnlyRoot, func(t *testing.T, e *harness.Env) {
		o := e.Mounted(t, "file f 0644 \"x\"\nown f 5 6\ndir open 0777\nfile suid 4777 \"s\"")
		// The kernel takes a mapping as a user namespace.
		holder := exec.Command("sleep", "60")
		holder.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags:  syscall.CLONE_NEWUSER,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: 400000, Size: 65536}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: 500000, Size: 65536}},
		}
		harness.Check(t, holder.Start())
		defer func() { _ = holder.Process.Kill(); _ = holder.Wait() }()
		userns := harness.Open(t, fmt.Sprintf("/proc/%d/ns/user", holder.Process.Pid), os.O_RDONLY)
		defer userns.Close()
		tree, err := unix.OpenTree(unix.AT_FDCWD, o.Point, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
		harness.Check(t, err)
		attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(userns.Fd())}
		harness.Check(t, unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH, &attr))
		view := fmt.Sprintf("/proc/self/fd/%d", tree)
		harness.Equal(t, "a lower's file", harness.Owner(t, view+"/f"), "400005:500006 0644")
		harness.As(t, 400005, 500006, func() {
			harness.AppendTo(t, view+"/f", "+")
			harness.Check(t, os.WriteFile(view+"/open/mine", nil, 0o640))
			harness.Check(t, os.Mkdir(view+"/open/dir", 0o750))
			harness.Check(t, os.Symlink("x", view+"/open/link"))
			harness.Check(t, os.Chmod(view+"/open/mine", 0o600))
		})
		for name, want := range map[string]string{"f": "0644", "open/mine": "0600", "open/dir": "0750", "open/link": "0777"} {
			harness.Equal(t, name, harness.Owner(t, view+"/"+name), "400005:500006 "+want)
			harness.Equal(t, name+" without mapping", harness.Owner(t, o.Path(name)), "5:6 "+want)
			harness.Equal(t, name+" on disk", harness.Owner(t, filepath.Join(o.Upper, name)), "5:6 "+want)
		}
		// Without a mapping nothing changes. Root may still keep a suid bit.
		harness.Check(t, os.Chmod(o.Path("suid"), 0o777|os.ModeSetuid))
		allocate := func(bytes int64) {
			f := harness.Open(t, o.Path("suid"), os.O_RDWR)
			defer f.Close()
			harness.Check(t, unix.Fallocate(int(f.Fd()), 0, 0, bytes))
		}
		allocate(10)
		harness.Equal(t, "fallocate by root", harness.Owner(t, o.Path("suid")), "0:0 4777")
		harness.As(t, 1000, 1000, func() { allocate(20) })
		harness.Equal(t, "fallocate by another", harness.Owner(t, o.Path("suid")), "0:0 0777")
		harness.Check(t, unix.Close(tree)) // which keeps the daemon
		o.Unmount()
	})
}
