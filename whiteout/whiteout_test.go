package whiteout

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

func TestMain(m *testing.M) {
	unix.Umask(0) // as in the daemon
	if os.Geteuid() != 0 {
		fmt.Fprintln(os.Stderr, "these tests make devices and mounts: run them as root")
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// open opens a folder for writing.
func open(t *testing.T, path string) *sys.Dir {
	t.Helper()
	must(t, os.MkdirAll(filepath.Join(path, "up"), 0o755))
	must(t, os.MkdirAll(filepath.Join(path, "work"), 0o755))
	up, work, err := sys.OpenUpper(filepath.Join(path, "up"), filepath.Join(path, "work"), 0)
	must(t, err)
	up.Close()
	t.Cleanup(work.Close)
	return work
}

// ramfs has neither extended attributes nor ACLs.
func ramfs(t *testing.T) string {
	t.Helper()
	point := t.TempDir()
	must(t, unix.Mount("ramfs", point, "ramfs", 0, ""))
	t.Cleanup(func() { must(t, unix.Unmount(point, unix.MNT_DETACH)) })
	return point
}

func list(t *testing.T, d *sys.Dir) []string {
	t.Helper()
	var names []string
	must(t, d.List(func(e sys.Dirent) error { names = append(names, e.Name); return nil }))
	return names
}

// both are the names of a mount without userxattr.
var both Names

// refusing makes the matching calls fail while f runs.
func refusing(match func(sys.Op) bool, err error, f func()) {
	sys.SetFault(func(op sys.Op) error {
		if match(op) {
			return err
		}
		return nil
	})
	defer sys.SetFault(nil)
	f()
}

func TestNames(t *testing.T) {
	for _, c := range []struct {
		name   string
		marker bool
		hidden string // empty: hides nothing
	}{
		{"foo", false, ""}, {"", false, ""}, {".wh", false, ""}, {"x.wh.foo", false, ""}, {".WH.foo", false, ""},
		{".wh.foo", true, "foo"}, {".wh..foo", true, ".foo"}, {".wh....", true, "..."}, {".wh.wh.foo", true, "wh.foo"},
		{".wh.", true, ""}, {".wh..", true, ""}, {".wh...", true, ""},
		{OpaqueMarker, true, ""}, {".wh..wh.plnk", true, ""}, {".wh..wh.", true, ""}, {".wh..wh.foo", true, ""},
	} {
		if got := IsMarker(c.name); got != c.marker {
			t.Errorf("IsMarker(%q) = %v", c.name, got)
		}
		if got, ok := Hidden(c.name); got != c.hidden || ok != (c.hidden != "") {
			t.Errorf("Hidden(%q) = %q, %v; want %q", c.name, got, ok, c.hidden)
		}
		if c.hidden != "" && Marker(c.hidden) != c.name {
			t.Errorf("Marker(%q) = %q, want %q", c.hidden, Marker(c.hidden), c.name)
		}
	}
}

func TestXattrNames(t *testing.T) {
	const refused = ""
	for _, c := range []struct{ onDisk, shown string }{ // as the mount shows what is on disk
		{"user.a", "user.a"}, {"trusted.a", "trusted.a"}, {"security.selinux", "security.selinux"},
		{"system.posix_acl_access", "system.posix_acl_access"}, {"user.containers.x", "user.containers.x"},
		{"trusted.overlayxxx", "trusted.overlayxxx"}, {"trusted.overlay", "trusted.overlay"}, // xfstests overlay/026
		{"user.overlay", "user.overlay"}, {"user.fuseoverlayfs", "user.fuseoverlayfs"},
		{"trusted.overlay.opaque", refused}, {"trusted.overlay.", refused}, {"trusted.overlay.overlay", refused},
		{"user.overlay.origin", refused}, {"user.fuseoverlayfs.opaque", refused}, {"user.fuseoverlayfs.overlay.x", refused},
		{"security.fuseoverlayfs.override_stat", refused},
		{"trusted.overlay.overlay.opaque", "trusted.overlay.opaque"}, {"user.overlay.overlay.x", "user.overlay.x"},
		{"trusted.overlay.overlay.", "trusted.overlay."},
		{"trusted.overlay.overlay.overlay.opaque", "trusted.overlay.overlay.opaque"}, // an overlay in an overlay in an overlay
	} {
		shown, ok := both.Visible(c.onDisk)
		if shown != c.shown || ok != (c.shown != refused) {
			t.Errorf("VisibleXattr(%q) = %q, %v; want %q", c.onDisk, shown, ok, c.shown)
		}
		if got := both.Private(c.onDisk); got == ok {
			t.Errorf("PrivateXattr(%q) = %v", c.onDisk, got)
		}
		if !ok {
			continue
		}
		if got, ok := both.Stored(c.shown); got != c.onDisk || !ok {
			t.Errorf("StoredXattr(%q) = %q, %v; want %q", c.shown, got, ok, c.onDisk)
		}
	}
	for _, shown := range []string{
		"user.fuseoverlayfs.opaque", "security.fuseoverlayfs.override_stat", "user.fuseoverlayfs.overlay.x",
		"trusted.overlay." + strings.Repeat("x", 255-len("trusted.overlay.overlay.")+1),
	} {
		if got, ok := both.Stored(shown); ok {
			t.Errorf("StoredXattr(%q) = %q", shown, got)
		}
	}
	if _, ok := both.Stored("trusted.overlay." + strings.Repeat("x", 255-len("trusted.overlay.overlay."))); !ok {
		t.Error("the longest name that fits is refused")
	}
}

// With userxattr trusted.overlay.* is content like any other: shown, stored and read as it is, and no mark.
func TestUserNamesOnly(t *testing.T) {
	user := Names{UserOnly: true}
	for _, name := range []string{"trusted.overlay.opaque", "trusted.overlay.overlay.opaque", "trusted.overlay.", "user.a"} {
		shown, ok := user.Visible(name)
		stored, ok2 := user.Stored(name)
		if !ok || !ok2 || shown != name || stored != name || user.Private(name) {
			t.Errorf("%s: shown as %q, stored as %q, private %v", name, shown, stored, user.Private(name))
		}
	}
	for _, name := range []string{"user.overlay.opaque", "user.fuseoverlayfs.opaque", "security.fuseoverlayfs.override_stat"} {
		if shown, ok := user.Visible(name); ok || !user.Private(name) {
			t.Errorf("%s: shown as %q, private %v", name, shown, user.Private(name))
		}
	}
	if stored, ok := user.Stored("user.overlay.opaque"); !ok || stored != "user.overlay.overlay.opaque" {
		t.Errorf("stored as %q, %v", stored, ok)
	}

	d := open(t, t.TempDir())
	must(t, d.Mknod("f", unix.S_IFREG|0o600, 0))
	f := d.At("f")
	var st sys.Stat
	must(t, f.Stat(&st))
	want := func(marks Marks, file FileMarks, absent bool) {
		t.Helper()
		if m, err := user.ReadMarks(d, false); err != nil || m != marks {
			t.Errorf("%+v (%v), want %+v", m, err, marks)
		}
		if m, err := user.ReadFileMarks(f); err != nil || m != file {
			t.Errorf("%+v (%v), want %+v", m, err, file)
		}
		if is, err := user.IsXattrWhiteout(f, &st); err != nil || is != absent {
			t.Errorf("a whiteout: %v (%v), want %v", is, err, absent)
		}
	}
	mark := func(prefix string) {
		for name, value := range map[string]string{"opaque": "y", "redirect": "x", "impure": "y"} {
			must(t, d.Ref().SetXattr(prefix+name, []byte(value), 0))
		}
		for name, value := range map[string]string{"whiteout": "", "metacopy": "", "redirect": "/x"} {
			must(t, f.SetXattr(prefix+name, []byte(value), 0))
		}
	}
	mark(trustedOverlay)
	want(Marks{}, FileMarks{}, false)
	mark(userOverlay)
	want(Marks{Opaque: true, Redirect: "x", ByUser: true, Impure: true}, FileMarks{Metacopy: true, Redirect: "/x", ByUser: true}, true)
}

func TestReadMarks(t *testing.T) {
	for _, c := range []struct {
		xattrs map[string]string
		marker bool
		want   Marks
	}{
		{nil, false, Marks{}},
		{nil, true, Marks{Opaque: true}},
		{map[string]string{"trusted.overlay.opaque": "y"}, false, Marks{Opaque: true}},
		{map[string]string{"user.overlay.opaque": "y"}, false, Marks{Opaque: true}},
		{map[string]string{"user.fuseoverlayfs.opaque": "y"}, false, Marks{Opaque: true}},
		{map[string]string{"trusted.overlay.opaque": "x"}, false, Marks{XattrWhiteouts: true}},
		{map[string]string{"user.overlay.opaque": "x"}, true, Marks{Opaque: true, XattrWhiteouts: true}},
		{map[string]string{"user.overlay.opaque": "x", "trusted.overlay.opaque": "y"}, false, Marks{Opaque: true, XattrWhiteouts: true}},
		{map[string]string{"user.fuseoverlayfs.opaque": "x"}, false, Marks{}},
		{map[string]string{"trusted.overlay.opaque": "n", "user.overlay.opaque": "", "user.fuseoverlayfs.opaque": "yes"}, false, Marks{}},
		{map[string]string{"trusted.overlay.impure": "y"}, false, Marks{Impure: true}},
		{map[string]string{"user.overlay.impure": "", "user.overlay.opaque": "y"}, true, Marks{Opaque: true, Impure: true}},
		{map[string]string{"user.opaque": "y", "trusted.overlay.overlay.opaque": "y", "trusted.overlay.origin": "y"}, false, Marks{}},
	} {
		d := open(t, t.TempDir())
		for name, value := range c.xattrs {
			must(t, d.Ref().SetXattr(name, []byte(value), 0))
		}
		if c.marker {
			must(t, Format{}.MarkOpaque(d))
		}
		got, err := both.ReadMarks(d, true)
		if must(t, err); got != c.want {
			t.Errorf("%v, marker %v: %+v, want %+v", c.xattrs, c.marker, got, c.want)
		}
		got, err = both.ReadMarks(d, false)
		want := c.want
		want.Opaque = want.Opaque && (!c.marker || len(c.xattrs) == 2)
		if must(t, err); got != want {
			t.Errorf("%v, not looking for a marker: %+v, want %+v", c.xattrs, got, want)
		}
	}
}

// A directory without marks costs one call, and with the look for a marker two; an error is told at each.
func TestReadMarksCalls(t *testing.T) {
	d := open(t, t.TempDir())
	for look, want := range map[bool]int{false: 1, true: 2} {
		n := 0
		sys.SetFault(func(sys.Op) error { n++; return nil })
		_, err := both.ReadMarks(d, look)
		sys.SetFault(nil)
		if must(t, err); n != want {
			t.Errorf("%d calls, want %d", n, want)
		}
	}
	must(t, d.Ref().SetXattr("user.overlay.opaque", []byte("x"), 0))
	for _, call := range []string{"listxattr", "getxattr", "fstatat"} {
		refusing(func(op sys.Op) bool { return op.Call == call }, unix.EIO, func() {
			if m, err := both.ReadMarks(d, true); err != unix.EIO || m != (Marks{}) {
				t.Errorf("failing %s: %+v, %v", call, m, err)
			}
		})
	}
	refusing(func(op sys.Op) bool { return op.Call == "getxattr" }, unix.ENODATA, func() {
		if m, err := both.ReadMarks(d, true); err != nil || m != (Marks{}) {
			t.Errorf("mark removed meanwhile: %+v, %v", m, err)
		}
	})
}

func TestIsXattrWhiteout(t *testing.T) {
	d := open(t, t.TempDir())
	for _, c := range []struct {
		mode  uint32
		size  int64
		xattr string
		want  bool
	}{
		{unix.S_IFREG, 0, "trusted.overlay.whiteout", true},
		{unix.S_IFREG, 0, "user.overlay.whiteout", true},
		{unix.S_IFREG, 0, "user.overlay.opaque", false},
		{unix.S_IFREG, 0, "trusted.overlay.overlay.whiteout", false},
		{unix.S_IFREG, 0, "", false},
		{unix.S_IFREG, 1, "trusted.overlay.whiteout", false},
		{unix.S_IFIFO, 0, "trusted.overlay.whiteout", false},
		{unix.S_IFDIR, 0, "trusted.overlay.whiteout", false},
	} {
		if c.mode == unix.S_IFDIR {
			must(t, d.Mkdir("f", 0o755))
		} else {
			must(t, d.Mknod("f", c.mode|0o600, 0))
		}
		if c.size > 0 {
			f, err := d.At("f").OpenFile(unix.O_RDWR)
			must(t, err)
			must(t, f.Truncate(c.size))
			f.Close()
		}
		if c.xattr != "" {
			must(t, d.At("f").SetXattr(c.xattr, nil, 0))
		}
		var st sys.Stat
		must(t, d.At("f").Stat(&st))
		if got, err := both.IsXattrWhiteout(d.At("f"), &st); err != nil || got != c.want {
			t.Errorf("%+v: %v, %v", c, got, err)
		}
		if c.mode == unix.S_IFDIR {
			must(t, d.Rmdir("f"))
		} else {
			must(t, d.Unlink("f"))
		}
	}
	if _, err := both.IsXattrWhiteout(d.At("f"), &sys.Stat{Mode: unix.S_IFREG}); err != unix.ENOENT {
		t.Errorf("of nothing: %v", err)
	}
}

// What is written is read back, in each format, and twice does no harm.
func TestMarkOpaque(t *testing.T) {
	for _, name := range []string{"trusted.overlay.opaque", "user.overlay.opaque", ""} {
		d := open(t, t.TempDir())
		f := Format{OpaqueXattr: name}
		for range 2 {
			must(t, f.MarkOpaque(d))
		}
		if m, err := both.ReadMarks(d, true); err != nil || m != (Marks{Opaque: true}) {
			t.Errorf("%q: %+v, %v", name, m, err)
		}
		if n := len(list(t, d)); (n > 0) != (name == "") {
			t.Errorf("%q: %d entries", name, n)
		}
		refusing(func(op sys.Op) bool { return op.Call == "setxattr" || op.Call == "openat" }, unix.ENOSPC, func() {
			if err := f.MarkOpaque(d); err != unix.ENOSPC {
				t.Errorf("%q on a full disk: %v", name, err)
			}
		})
	}
}

func TestProbe(t *testing.T) {
	is := func(call, name string) func(sys.Op) bool {
		return func(op sys.Op) bool { return op.Call == call && (name == "" || op.Name == name) }
	}
	const trusted, user = "trusted.overlay.opaque", "user.overlay.opaque"
	for _, c := range []struct {
		what   string
		base   string
		wanted Wanted
		refuse func(sys.Op) bool
		err    error
		want   Format
	}{
		{"root on ext4", t.TempDir(), Wanted{}, nil, nil, Format{Devices: true, RenameWhiteout: true, OpaqueXattr: trusted}},
		{"markers wanted", t.TempDir(), Wanted{Markers: true}, nil, nil, Format{Devices: false, RenameWhiteout: false, OpaqueXattr: trusted}},
		{"no attributes", ramfs(t), Wanted{}, nil, nil, Format{Devices: true, RenameWhiteout: false, OpaqueXattr: ""}},
		{"no devices", t.TempDir(), Wanted{}, is("mknodat", ""), unix.EPERM, Format{Devices: false, RenameWhiteout: false, OpaqueXattr: trusted}},
		{"neither devices nor markers", t.TempDir(), Wanted{}, func(op sys.Op) bool { return op.Call == "mknodat" || op.Name == trialMarker },
			unix.EPERM, Format{OpaqueXattr: trusted, WhiteoutXattr: "trusted.overlay.whiteout"}},
		{"no RENAME_WHITEOUT", t.TempDir(), Wanted{}, is("renameat2", trialMoved), unix.EINVAL, Format{Devices: true, RenameWhiteout: false, OpaqueXattr: trusted}},
		{"no RENAME_EXCHANGE", t.TempDir(), Wanted{}, is("renameat2", trialFile), unix.EINVAL, Format{Devices: false, RenameWhiteout: false, OpaqueXattr: trusted}},
		{"no trusted names", t.TempDir(), Wanted{}, is("setxattr", trusted), unix.EPERM, Format{Devices: true, RenameWhiteout: true, OpaqueXattr: user}},
		{"user names only", t.TempDir(), Wanted{Names: Names{UserOnly: true}}, nil, nil, Format{Devices: true, RenameWhiteout: true, OpaqueXattr: user}},
		{"attributes rather than markers", t.TempDir(), Wanted{Xattrs: true}, is("mknodat", ""), unix.EPERM, Format{OpaqueXattr: trusted, WhiteoutXattr: "trusted.overlay.whiteout"}},
		{"devices rather than attributes", t.TempDir(), Wanted{Xattrs: true}, nil, nil, Format{Devices: true, RenameWhiteout: true, OpaqueXattr: trusted}},
		{"no devices wanted, and no markers", t.TempDir(), Wanted{Markers: true, Xattrs: true, Names: Names{UserOnly: true}}, nil, nil,
			Format{OpaqueXattr: user, WhiteoutXattr: "user.overlay.whiteout"}},
		{"attributes that cannot be had", ramfs(t), Wanted{Markers: true, Xattrs: true}, nil, nil, Format{}},
		{"attributes that do not stay", t.TempDir(), Wanted{}, is("getxattr", ""), unix.ENODATA, Format{Devices: true, RenameWhiteout: true, OpaqueXattr: ""}},
	} {
		work := open(t, c.base)
		// a run that was killed in the middle
		must(t, work.Mkdir(trialDir, 0o700))
		must(t, work.Mknod(trialDevice, unix.S_IFREG, 0))
		must(t, work.Mknod(trialMoved, unix.S_IFREG, 0))
		probe := func() {
			if got, err := Probe(work, c.wanted); err != nil || got != c.want {
				t.Errorf("%s: %+v, %v; want %+v", c.what, got, err, c.want)
			}
		}
		if c.refuse != nil {
			refusing(c.refuse, c.err, probe)
		} else {
			probe()
		}
		if names := list(t, work); len(names) > 0 {
			t.Errorf("%s: left %v", c.what, names)
		}
	}
}

// If a marker's name is too long, an attribute hides the name, else a device. An error of the disk
// is returned.
func TestProbeLong(t *testing.T) {
	const trusted = "trusted.overlay.opaque"
	for _, c := range []struct {
		what   string
		format Format
		refuse string
		err    error
		want   Format
		fails  bool
	}{
		{"devices", Format{Devices: true, OpaqueXattr: trusted}, "", nil, Format{Devices: true, OpaqueXattr: trusted}, false},
		{"attributes", Format{OpaqueXattr: trusted}, "", nil, Format{OpaqueXattr: trusted, WhiteoutXattr: "trusted.overlay.whiteout"}, false},
		{"no attributes of files", Format{OpaqueXattr: trusted}, "setxattr", unix.EPERM, Format{Devices: true, RenameWhiteout: true, OpaqueXattr: trusted}, false},
		{"no attributes", Format{}, "", nil, Format{Devices: true, RenameWhiteout: true}, false},
		{"no RENAME_WHITEOUT", Format{}, "renameat2", unix.EINVAL, Format{Devices: true}, false},
		{"nothing", Format{}, "mknodat", unix.EPERM, Format{}, false},
		{"a full disk, attributes", Format{OpaqueXattr: trusted}, "setxattr", unix.ENOSPC, Format{}, true},
		{"a full disk, devices", Format{}, "mknodat", unix.ENOSPC, Format{}, true},
		{"a failing disk", Format{}, "renameat2", unix.EIO, Format{}, true},
		{"a failing disk, cleaning up", Format{}, "unlinkat", unix.EIO, Format{}, true},
	} {
		work := open(t, t.TempDir())
		var got Format
		var err error
		refusing(func(op sys.Op) bool { return op.Call == c.refuse }, c.err, func() { got, err = ProbeLong(work, c.format) })
		if c.fails != (err != nil) || err != nil && err != c.err || err == nil && got != c.want {
			t.Errorf("%s: %+v, %v; want %+v", c.what, got, err, c.want)
		}
		if names := list(t, work); len(names) > 0 && c.refuse != "unlinkat" {
			t.Errorf("%s: left %v", c.what, names)
		}
	}
}

// A disk that fails or is full is not taken for one that cannot, whichever call it is, and nothing is left.
func TestProbeFaults(t *testing.T) {
	for _, e := range []error{unix.EIO, unix.ENOSPC, unix.EDQUOT, unix.EROFS} {
		for _, kill := range []bool{false, true} {
			work := open(t, t.TempDir())
			for i := 0; ; i++ {
				n := 0
				sys.SetFault(func(sys.Op) error {
					n++
					if n-1 == i || (kill && n > i) {
						return e
					}
					return nil
				})
				f, err := Probe(work, Wanted{})
				sys.SetFault(nil)
				if n <= i {
					if must(t, err); f != (Format{Devices: true, RenameWhiteout: true, OpaqueXattr: "trusted.overlay.opaque"}) {
						t.Errorf("%+v", f)
					}
					break
				}
				if err != e || f != (Format{}) {
					t.Errorf("call %d: %+v, %v; want %v", i, f, err, e)
				}
				must(t, removeTrials(work))
				if names := list(t, work); len(names) > 0 {
					t.Fatalf("call %d: left %v", i, names)
				}
			}
		}
	}
}

// A file system that makes something else than it was asked for has no whiteouts.
func TestIsDevice(t *testing.T) {
	work := open(t, t.TempDir())
	must(t, work.Mknod("f", unix.S_IFREG, 0))
	must(t, work.Mknod("null", unix.S_IFCHR, unix.Mkdev(1, 3)))
	for _, name := range []string{"f", "null"} {
		if ok, err := available(isDevice(work, name)); ok || err != nil {
			t.Errorf("%s: %v, %v", name, ok, err)
		}
	}
	if _, err := available(isDevice(work, "nothing")); err != unix.ENOENT {
		t.Errorf("nothing: %v", err)
	}
}

const namespaceChild = "WHITEOUT_TEST_NAMESPACE"

// In a user namespace whiteouts are devices all the same, and opaque directories have the user's attribute.
func TestUserNamespace(t *testing.T) {
	if base := os.Getenv(namespaceChild); base != "" {
		want := Format{Devices: true, RenameWhiteout: true, OpaqueXattr: "user.overlay.opaque"}
		if f, err := Probe(open(t, base), Wanted{}); err != nil || f != want {
			t.Errorf("%+v, %v; want %+v", f, err, want)
		}
		return
	}
	base := t.TempDir()
	for p := base; p != os.TempDir(); p = filepath.Dir(p) {
		must(t, os.Chmod(p, 0o755))
	}
	must(t, os.Chown(base, 100000, 100000))
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
}

func TestReadFileMarks(t *testing.T) {
	d := open(t, t.TempDir())
	sum := strings.Repeat("s", 32)
	for _, c := range []struct {
		xattrs map[string]string
		want   FileMarks
		err    error
	}{
		{nil, FileMarks{}, nil},
		{map[string]string{"trusted.overlay.redirect": "x", "user.note": "n"}, FileMarks{}, nil},
		{map[string]string{"trusted.overlay.metacopy": ""}, FileMarks{Metacopy: true}, nil},
		{map[string]string{"trusted.overlay.metacopy": "\x00\x04\x00\x00", "trusted.overlay.redirect": "/x"}, FileMarks{Metacopy: true, Redirect: "/x"}, nil},
		{map[string]string{"trusted.overlay.metacopy": "\x00\x24\x00\x01" + sum}, FileMarks{Metacopy: true, Digest: sys.NewDigest(1, []byte(sum))}, nil},
		{map[string]string{"user.overlay.metacopy": "", "user.overlay.redirect": "x"}, FileMarks{Metacopy: true, Redirect: "x", ByUser: true}, nil},
		{map[string]string{"trusted.overlay.metacopy": "", "user.overlay.metacopy": "no"}, FileMarks{Metacopy: true}, nil},
		{map[string]string{"trusted.overlay.metacopy": "", "user.overlay.redirect": "x"}, FileMarks{Metacopy: true, Redirect: "x", ByUser: true}, nil},
		{map[string]string{"trusted.overlay.metacopy": "", "user.overlay.redirect": "no", "trusted.overlay.redirect": "x"}, FileMarks{Metacopy: true, Redirect: "x"}, nil},
		{map[string]string{"trusted.overlay.metacopy": "x"}, FileMarks{}, unix.EINVAL},
		{map[string]string{"trusted.overlay.metacopy": "\x00\x24\x00\x00" + sum}, FileMarks{}, unix.EINVAL},
		{map[string]string{"trusted.overlay.metacopy": "\x00\x45\x00\x01" + strings.Repeat("s", 65)}, FileMarks{}, unix.EINVAL},
	} {
		f, err := d.CreateFile("f", 0o600)
		must(t, err)
		f.Close()
		for name, value := range c.xattrs {
			must(t, d.At("f").SetXattr(name, []byte(value), 0))
		}
		if got, err := both.ReadFileMarks(d.At("f")); got != c.want || err != c.err {
			t.Errorf("%q: %+v, %v; want %+v, %v", c.xattrs, got, err, c.want, c.err)
		}
		if c.want.Metacopy && !c.want.ByUser {
			name, value := Format{OpaqueXattr: trustedOpaque}.Metacopy(c.want.Digest)
			if old := c.xattrs[name]; string(value) != old && len(old) != metacopyHeader {
				t.Errorf("written as %q, read from %q", value, old)
			}
		}
		refusing(func(op sys.Op) bool { return op.Call == "getxattr" }, unix.ENODATA, func() {
			if m, err := both.ReadFileMarks(d.At("f")); err != nil || m != (FileMarks{}) {
				t.Errorf("marks removed meanwhile: %+v, %v", m, err)
			}
		})
		for _, call := range []string{"listxattr", "getxattr"} {
			refusing(func(op sys.Op) bool { return op.Call == call }, unix.EIO, func() {
				if m, err := both.ReadFileMarks(d.At("f")); err == nil && (call == "listxattr" || m.Metacopy) {
					t.Errorf("failing %s: %+v, %v", call, m, err)
				}
			})
		}
		must(t, d.Unlink("f"))
	}
}
