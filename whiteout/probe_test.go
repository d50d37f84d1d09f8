package whiteout

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/ondisk"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

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

// What is written is read back, in each format, and twice does no harm.
func TestMakeOpaque(t *testing.T) {
	for _, ns := range []ondisk.Namespace{ondisk.Trusted, ondisk.User, ondisk.NoXattrs} {
		d := open(t, t.TempDir())
		f := Format{Xattrs: ns}
		for range 2 {
			must(t, f.MakeOpaque(d))
		}
		if m, err := ReadDir(both, d); err != nil || m != (DirXattrs{Opaque: true}) {
			t.Errorf("%v: %+v, %v", ns, m, err)
		}
		if n := len(list(t, d)); (n > 0) != (ns == ondisk.NoXattrs) {
			t.Errorf("%v: %d entries", ns, n)
		}
		refusing(func(op sys.Op) bool { return op.Call == "setxattr" || op.Call == "openat" }, unix.ENOSPC, func() {
			if err := f.MakeOpaque(d); err != unix.ENOSPC {
				t.Errorf("%v on a full disk: %v", ns, err)
			}
		})
	}
}

func TestProbe(t *testing.T) {
	is := func(call, name string) func(sys.Op) bool {
		return func(op sys.Op) bool { return op.Call == call && (name == "" || op.Name == name) }
	}
	const trusted, user = ondisk.Trusted, ondisk.User
	for _, c := range []struct {
		what   string
		base   string
		wanted Wanted
		refuse func(sys.Op) bool
		err    error
		want   Format
	}{
		{"root on ext4", t.TempDir(), Wanted{}, nil, nil, Format{Devices: true, RenameWhiteout: true, Xattrs: trusted}},
		{"markers wanted", t.TempDir(), Wanted{Markers: true}, nil, nil, Format{Devices: false, RenameWhiteout: false, Xattrs: trusted}},
		{"no attributes", ramfs(t), Wanted{}, nil, nil, Format{Devices: true, RenameWhiteout: false, Xattrs: ondisk.NoXattrs}},
		{"no devices", t.TempDir(), Wanted{}, is("mknodat", ""), unix.EPERM, Format{Devices: false, RenameWhiteout: false, Xattrs: trusted}},
		{"neither devices nor markers", t.TempDir(), Wanted{}, func(op sys.Op) bool { return op.Call == "mknodat" || op.Name == trialMarker },
			unix.EPERM, Format{Xattrs: trusted, WhiteoutXattrs: true}},
		{"no RENAME_WHITEOUT", t.TempDir(), Wanted{}, is("renameat2", trialMoved), unix.EINVAL, Format{Devices: true, RenameWhiteout: false, Xattrs: trusted}},
		{"no RENAME_EXCHANGE", t.TempDir(), Wanted{}, is("renameat2", trialFile), unix.EINVAL, Format{Devices: false, RenameWhiteout: false, Xattrs: trusted}},
		{"no trusted names", t.TempDir(), Wanted{}, is("setxattr", trusted.Name(ondisk.Opaque)), unix.EPERM, Format{Devices: true, RenameWhiteout: true, Xattrs: user}},
		{"user names only", t.TempDir(), Wanted{Names: ondisk.Names{UserOnly: true}}, nil, nil, Format{Devices: true, RenameWhiteout: true, Xattrs: user}},
		{"attributes rather than markers", t.TempDir(), Wanted{Xattrs: true}, is("mknodat", ""), unix.EPERM, Format{Xattrs: trusted, WhiteoutXattrs: true}},
		{"devices rather than attributes", t.TempDir(), Wanted{Xattrs: true}, nil, nil, Format{Devices: true, RenameWhiteout: true, Xattrs: trusted}},
		{"no devices wanted, and no markers", t.TempDir(), Wanted{Markers: true, Xattrs: true, Names: ondisk.Names{UserOnly: true}}, nil, nil,
			Format{Xattrs: user, WhiteoutXattrs: true}},
		{"attributes that cannot be had", ramfs(t), Wanted{Markers: true, Xattrs: true}, nil, nil, Format{}},
		{"neither devices, markers nor attributes", t.TempDir(), Wanted{}, func(op sys.Op) bool {
			return op.Call == "mknodat" || op.Call == "setxattr" || op.Name == trialMarker
		}, unix.EPERM, Format{None: true}},
		{"no attributes of files, devices or markers", t.TempDir(), Wanted{Xattrs: true}, func(op sys.Op) bool {
			return op.Call == "mknodat" || op.Name == trialMarker || op.Call == "renameat2"
		}, unix.EINVAL, Format{Xattrs: trusted, None: true}},
		{"attributes that do not stay", t.TempDir(), Wanted{}, is("getxattr", ""), unix.ENODATA, Format{Devices: true, RenameWhiteout: true, Xattrs: ondisk.NoXattrs}},
	} {
		work := open(t, c.base)
		// a run that was killed in the middle
		must(t, work.Mkdir(trialDir, 0o700))
		must(t, work.Mknod(trialDevice, unix.S_IFREG, 0))
		must(t, work.Mknod(trialMoved, unix.S_IFREG, 0))
		probe := func() {
			if got, err := probe(work, c.wanted); err != nil || got != c.want {
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
	const trusted = ondisk.Trusted
	for _, c := range []struct {
		what   string
		format Format
		refuse string
		err    error
		want   Format
		fails  bool
	}{
		{"devices", Format{Devices: true, Xattrs: trusted}, "", nil, Format{Devices: true, Xattrs: trusted}, false},
		{"attributes", Format{Xattrs: trusted}, "", nil, Format{Xattrs: trusted, WhiteoutXattrs: true}, false},
		{"no attributes of files", Format{Xattrs: trusted}, "setxattr", unix.EPERM, Format{Devices: true, RenameWhiteout: true, Xattrs: trusted}, false},
		{"no attributes", Format{}, "", nil, Format{Devices: true, RenameWhiteout: true}, false},
		{"no RENAME_WHITEOUT", Format{}, "renameat2", unix.EINVAL, Format{Devices: true}, false},
		{"nothing", Format{}, "mknodat", unix.EPERM, Format{}, false},
		{"a full disk, attributes", Format{Xattrs: trusted}, "setxattr", unix.ENOSPC, Format{}, true},
		{"a full disk, devices", Format{}, "mknodat", unix.ENOSPC, Format{}, true},
		{"a failing disk", Format{}, "renameat2", unix.EIO, Format{}, true},
		{"a failing disk, cleaning up", Format{}, "unlinkat", unix.EIO, Format{}, true},
	} {
		work := open(t, t.TempDir())
		var got Format
		var err error
		refusing(func(op sys.Op) bool { return op.Call == c.refuse }, c.err, func() { got, err = probeLong(work, c.format) })
		if c.fails != (err != nil) || err != nil && err != c.err || err == nil && got != c.want {
			t.Errorf("%s: %+v, %v; want %+v", c.what, got, err, c.want)
		}
		if names := list(t, work); len(names) > 0 && c.refuse != "unlinkat" {
			t.Errorf("%s: left %v", c.what, names)
		}
	}
}

// A disk that fails or is full is not taken for one that cannot, whichever call it is, and nothing
// is left.
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
				f, err := probe(work, Wanted{})
				sys.SetFault(nil)
				if n <= i {
					if must(t, err); f != (Format{Devices: true, RenameWhiteout: true, Xattrs: ondisk.Trusted}) {
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

// A file system that makes another object than a whiteout device has no whiteouts of that form.
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

// In a user namespace whiteouts are devices all the same, and opaque directories have the user's
// attribute.
func TestUserNamespace(t *testing.T) {
	if base := os.Getenv(namespaceChild); base != "" {
		want := Format{Devices: true, RenameWhiteout: true, Xattrs: ondisk.User}
		if f, err := probe(open(t, base), Wanted{}); err != nil || f != want {
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
