package copyup

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// check is must for goroutines other than that of the test.
func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Error(err)
	}
}

// openTo makes a folder that belongs to the plain user uid, and that this user can reach.
func openTo(t *testing.T, uid int) string {
	t.Helper()
	base := t.TempDir()
	for p := base; p != os.TempDir(); p = filepath.Dir(p) {
		must(t, os.Chmod(p, 0o755))
	}
	must(t, os.Chown(base, uid, uid))
	return base
}

func chownTree(t *testing.T, base string, uid int) {
	t.Helper()
	must(t, filepath.Walk(base, func(p string, _ os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(p, uid, uid)
	}))
}

// tableNames has a name for each row of xattrTable, and for the default.
var tableNames = []string{
	"user.a", "trusted.a", "security.a", "security.capability", "security.selinux", "security.SMACK64EXEC",
	"security.ima", "security.evm", "security.apparmor", "system.posix_acl_access", "system.posix_acl_default",
	"system.nfs4_acl", "btrfs.compression",
}

// TestDiskErrorsAreNotIgnored checks that a copy-up ignores no error of a disk for any attribute.
func TestDiskErrorsAreNotIgnored(t *testing.T) {
	for _, name := range tableNames {
		get, set := ignoredErrors(name)
		for _, err := range []error{unix.EIO, unix.ENOSPC, unix.EDQUOT, unix.EROFS, unix.E2BIG, unix.ENOMEM} {
			if isOneOf(err, get) || isOneOf(err, set) {
				t.Errorf("%v of %s is ignored", err, name)
			}
		}
	}
}

// TestIgnoredErrors checks that a copy lacks the attribute whose error the copy-up ignores. It must
// have the data, the other attributes, the owner, the mode and the times.
func TestIgnoredErrors(t *testing.T) {
	base := t.TempDir()
	s := newSite(t, base, base)
	kinds()[0].build(t, filepath.Join(s.lowerPath, "f"))
	want := describe(t, filepath.Join(s.lowerPath, "f"))
	st := s.stat(t, "f")
	for _, c := range []struct {
		call, name string
		err        error
		ignored    bool
	}{
		{"setxattr", "user.a", unix.EOPNOTSUPP, true},
		{"setxattr", "user.a", unix.EPERM, false},
		{"setxattr", "user.a", unix.ENOSPC, false},
		{"getxattr", "user.a", unix.ENODATA, true},
		{"getxattr", "user.a", unix.EIO, false},
		{"getxattr", "user.a", unix.EOPNOTSUPP, false},
		{"setxattr", "trusted.note", unix.EOPNOTSUPP, true},
		{"setxattr", "trusted.note", unix.EPERM, true},
		{"setxattr", "trusted.note", unix.EDQUOT, false},
		{"setxattr", "security.note", unix.EOPNOTSUPP, false},
		{"setxattr", "security.note", unix.EPERM, false},
		{"getxattr", "security.capability", unix.EOVERFLOW, true},
		{"setxattr", "security.capability", unix.EPERM, false},
		{"setxattr", "security.capability", unix.EOPNOTSUPP, false},
		{"setxattr", "system.posix_acl_access", unix.EOPNOTSUPP, false},
		{"setxattr", "system.posix_acl_access", unix.EINVAL, false},
	} {
		var err error
		failing(func(op sys.Op) bool { return op == sys.Op{Call: c.call, Name: c.name} }, c.err, func() {
			err = s.copyUp(s.copier(), st, "f")
		})
		s.wantEmptyWork(t)
		upper := filepath.Join(s.upperPath, "f")
		if !c.ignored {
			if err != c.err {
				t.Errorf("%s of %s returns %v: the copy-up returns %v", c.call, c.name, c.err, err)
			}
			if _, err := os.Lstat(upper); err == nil {
				t.Errorf("%s of %s returns %v: there is a copy", c.call, c.name, c.err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s of %s returns %v: the copy-up returns %v", c.call, c.name, c.err, err)
			continue
		}
		lines := slices.DeleteFunc(strings.Split(want, "\n"), func(line string) bool {
			return strings.HasPrefix(line, c.name+"=")
		})
		if got := describe(t, upper); got != strings.Join(lines, "\n") {
			t.Errorf("%s of %s returns %v: upper\n%s\nwant\n%s", c.call, c.name, c.err, got, strings.Join(lines, "\n"))
		}
		must(t, os.Remove(upper))
	}
}

// TestLabelsMayBeRefused checks that a copy-up ignores the errors of labels: they belong to the
// security module of the machine.
func TestLabelsMayBeRefused(t *testing.T) {
	for _, name := range []string{"security.selinux", "security.SMACK64", "security.ima", "security.evm"} {
		_, set := ignoredErrors(name)
		for _, err := range []error{unix.EOPNOTSUPP, unix.EPERM, unix.EACCES, unix.EINVAL} {
			if !isOneOf(err, set) {
				t.Errorf("%v of %s is not ignored", err, name)
			}
		}
	}
}

// TestCopiesXattr checks that a copy gets only the attributes for which CopiesXattr returns true.
func TestCopiesXattr(t *testing.T) {
	base := t.TempDir()
	s := newSite(t, base, base)
	path := filepath.Join(s.lowerPath, "d")
	must(t, os.Mkdir(path, 0o755))
	for _, name := range []string{"trusted.overlay.opaque", "trusted.overlay.overlay.opaque", "user.x"} {
		setXattr(t, path, name, "y")
	}
	c := s.copier()
	c.CopiesXattr = func(name string) bool { return name != "trusted.overlay.opaque" }
	must(t, s.copyUp(c, s.stat(t, "d"), "d"))
	want := []string{"trusted.overlay.overlay.opaque", "user.x"}
	if got := xattrsOf(t, filepath.Join(s.upperPath, "d")); !slices.Equal(got, want) {
		t.Errorf("the copy has %v, want %v", got, want)
	}
}

// TestPoorUppers copies up to an upper without extended attributes: the copy has none. A copy-up of
// an object with an ACL must fail, because the upper has no ACLs.
func TestPoorUppers(t *testing.T) {
	t.Run("no attributes", func(t *testing.T) {
		s := newSite(t, t.TempDir(), mountFS(t, "ramfs", ""))
		path := filepath.Join(s.lowerPath, "f")
		must(t, os.WriteFile(path, pattern(9000), 0o640))
		setXattr(t, path, "user.a", "1")
		setXattr(t, path, "trusted.a", "1")
		must(t, s.copyUp(s.copier(), s.stat(t, "f"), "f"))
		sameData(t, path, filepath.Join(s.upperPath, "f"))
	})
	t.Run("no ACLs", func(t *testing.T) {
		s := newSite(t, t.TempDir(), mountFS(t, "ramfs", ""))
		for _, k := range kinds() {
			if k.name == "regular" || k.name == "directory" {
				k.build(t, filepath.Join(s.lowerPath, k.name))
				if err := s.copyUp(s.copier(), s.stat(t, k.name), k.name); err != unix.EOPNOTSUPP {
					t.Errorf("%s with an ACL: %v, want EOPNOTSUPP", k.name, err)
				}
			}
		}
		s.wantEmptyWork(t)
	})
}

// TestPlainUser runs copy-ups as a plain user. The user's own objects must get a copy, directories
// without write permission too. For other objects the copy-up must return the error of the kernel.
func TestPlainUser(t *testing.T) {
	base := openTo(t, 1000)
	s := newSite(t, base, base)
	in := func(name string) string { return filepath.Join(s.lowerPath, name) }
	must(t, os.WriteFile(in("mine"), pattern(5000), 0o640))
	must(t, os.WriteFile(in("noted"), pattern(5000), 0o444))
	setXattr(t, in("noted"), "user.a", "1")
	must(t, os.WriteFile(in("closed"), pattern(5000), 0o000))
	must(t, os.Mkdir(in("readonly"), 0o555))
	must(t, os.Mkdir(in("nothing"), 0o000))
	must(t, os.Symlink("x", in("link")))
	must(t, unix.Mkfifo(in("fifo"), 0o600))
	chownTree(t, base, 1000)
	must(t, os.WriteFile(in("others"), pattern(5000), 0o644))
	must(t, unix.Mknod(in("device"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
	must(t, os.Chown(s.workPath, 1000, 1000))
	asUser(t, 1000, func() { s.work = OpenWork(s.work.Dir()) })

	cases := []struct {
		name string
		want error
	}{
		{"mine", nil}, {"noted", nil}, {"readonly", nil}, {"nothing", nil}, {"link", nil}, {"fifo", nil},
		{"closed", unix.EACCES}, {"others", unix.EPERM}, {"device", unix.EPERM},
	}
	for _, c := range cases {
		st := s.stat(t, c.name)
		var err error
		asUser(t, 1000, func() { err = s.copyUp(s.copier(), st, c.name) })
		if err != c.want {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
		s.wantEmptyWork(t)
		upper := filepath.Join(s.upperPath, c.name)
		if _, err := os.Lstat(upper); (err == nil) != (c.want == nil) {
			t.Errorf("%s: in the upper %v", c.name, err)
		} else if err == nil {
			if got, want := describe(t, upper), describe(t, in(c.name)); got != want {
				t.Errorf("%s: upper\n%s\nwant\n%s", c.name, got, want)
			}
		}
	}

	// If Publish cannot make a read-only directory writable, it stays staged.
	st := s.stat(t, "readonly")
	must(t, os.Remove(filepath.Join(s.upperPath, "readonly")))
	asUser(t, 1000, func() {
		staged, err := s.copier().Stage(asIs(s.lower.At("readonly")), st, Data{Amount: Whole()})
		check(t, err)
		failing(call("fchmodat2"), unix.EIO, func() {
			if err := staged.Publish(s.upper, "readonly"); err != unix.EIO {
				t.Errorf("publish: %v, want EIO", err)
			}
		})
		staged.Discard()
	})
	s.wantEmptyWork(t)
}

const namespaceChild = "COPYUP_TEST_NAMESPACE"

// TestUserNamespace copies up as root of a user namespace. xattrTable decides whether a copy-up
// fails or ignores the error, if the kernel requires root of the first namespace.
func TestUserNamespace(t *testing.T) {
	if base := os.Getenv(namespaceChild); base != "" {
		inNamespace(t, base)
		return
	}
	base := openTo(t, 100000)
	for _, p := range []string{"lower", "upper", "work"} {
		must(t, os.Mkdir(filepath.Join(base, p), 0o755))
	}
	must(t, os.WriteFile(filepath.Join(base, "lower/f"), pattern(5000), 0o640))
	must(t, os.WriteFile(filepath.Join(base, "lower/label"), pattern(5000), 0o640))
	chownTree(t, base, 100000)
	must(t, os.Chown(filepath.Join(base, "lower/f"), 101000, 101001))
	setXattr(t, filepath.Join(base, "lower/f"), "user.a", "1")
	setXattr(t, filepath.Join(base, "lower/f"), "trusted.a", "1")
	setXattr(t, filepath.Join(base, "lower/f"), "security.capability", capabilityValue())
	setXattr(t, filepath.Join(base, "lower/label"), "security.note", "1")
	must(t, unix.Mknod(filepath.Join(base, "lower/device"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
	must(t, os.Chown(filepath.Join(base, "lower/device"), 100000, 100000))

	cmd := exec.Command("/proc/self/exe", "-test.run=^TestUserNamespace$", "-test.v")
	cmd.Env = append(os.Environ(), namespaceChild+"="+base)
	ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: 100000, Size: 65536}}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWUSER, UidMappings: ids, GidMappings: ids,
		GidMappingsEnableSetgroups: true, Credential: &syscall.Credential{},
	}
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS: TestUserNamespace") {
		t.Fatalf("%v\n%s", err, out)
	}
	if got := xattrsOf(t, filepath.Join(base, "upper/f")); !slices.Equal(got, []string{"security.capability", "user.a"}) {
		t.Errorf("the copy has %v", got)
	}
	var st unix.Stat_t
	must(t, unix.Stat(filepath.Join(base, "upper/f"), &st))
	if st.Uid != 101000 || st.Gid != 101001 {
		t.Errorf("the copy belongs to %d:%d", st.Uid, st.Gid)
	}
}

func inNamespace(t *testing.T, base string) {
	s := newSite(t, base, base)
	must(t, s.work.Sweep())
	must(t, s.copyUp(s.copier(), s.stat(t, "f"), "f"))
	if err := s.copyUp(s.copier(), s.stat(t, "device"), "device"); err != unix.EPERM {
		t.Errorf("device: %v, want EPERM", err)
	}
	if err := s.copyUp(s.copier(), s.stat(t, "label"), "label"); err != unix.EPERM {
		t.Errorf("security attribute: %v, want EPERM", err)
	}
	s.wantEmptyWork(t)
}

// TestInodeFlags checks that a copy gets copiedFlags of its source, and no other inode flag. If the
// source is immutable or append-only, the copy must get an attribute.
func TestInodeFlags(t *testing.T) {
	base := mountFS(t, "ext4", "")
	s := newSite(t, base, base)
	c := s.copier()
	const protattr = "trusted.overlay.protattr"
	var asked uint32
	c.Protattr = func(flags uint32) (Xattr, bool) { asked = flags; return Xattr{protattr, []byte("x")}, true }
	must(t, os.WriteFile(filepath.Join(s.lowerPath, "f"), pattern(5000), 0o600))
	must(t, os.WriteFile(filepath.Join(s.lowerPath, "empty"), nil, 0o600))
	must(t, os.Mkdir(filepath.Join(s.lowerPath, "d"), 0o755))
	set := func(name string, flags uint32) { // sys.Dir of the lower is read-only
		fd, err := unix.Open(filepath.Join(s.lowerPath, name), unix.O_RDONLY, 0)
		must(t, err)
		must(t, unix.IoctlSetPointerInt(fd, unix.FS_IOC_SETFLAGS, int(flags)))
		must(t, unix.Close(fd))
	}
	const own = sys.FlagImmutable | sys.FlagAppend | copiedFlags
	for _, flags := range []uint32{0, sys.FlagSync, copiedFlags, own} {
		for _, name := range []string{"f", "empty", "d"} {
			source := s.lower.At(name)
			before, err := source.InodeFlags()
			must(t, err)
			set(name, before|flags)
			asked = 0
			must(t, s.copyUp(c, s.stat(t, name), name))
			set(name, before)
			upper := filepath.Join(s.upperPath, name)
			d, _, err := sys.OpenLower(s.upperPath)
			must(t, err)
			got, err := d.At(name).InodeFlags()
			d.Close()
			must(t, err)
			if got&own != flags&copiedFlags {
				t.Errorf("%s with %#x: the copy has %#x", name, flags, got&own)
			}
			if want := flags &^ copiedFlags; asked != want {
				t.Errorf("%s with %#x: an attribute for %#x", name, flags, asked)
			}
			if _, err := unix.Lgetxattr(upper, protattr, nil); (err == nil) != (asked != 0) {
				t.Errorf("%s with %#x: the attribute: %v", name, flags, err)
			}
			must(t, os.Remove(upper))
		}
	}

	// If the source or the copy has no inode flags, the copy-up succeeds.
	for _, err := range []error{unix.ENOTTY, unix.EOPNOTSUPP, unix.EINVAL, unix.EACCES} {
		failing(func(op sys.Op) bool { return op.Call == "getflags" || op.Call == "setflags" }, err, func() {
			must(t, s.copyUp(c, s.stat(t, "f"), "f"))
		})
		must(t, os.Remove(filepath.Join(s.upperPath, "f")))
	}
}
