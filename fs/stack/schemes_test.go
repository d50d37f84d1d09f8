package stack

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/copyup"
	"github.com/fuse-overlay/fuse-overlay/internal/host"
	"github.com/fuse-overlay/fuse-overlay/internal/owner"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

const override = "user.containers.override_stat"

func getxattr(t *testing.T, path, name string) string {
	t.Helper()
	value := make([]byte, 256)
	n, err := unix.Lgetxattr(path, name, value)
	if err == unix.ENODATA {
		return ""
	}
	must(t, err)
	return string(value[:n])
}

func (s *site) wantShown(path string, uid, gid, mode uint32) {
	s.t.Helper()
	_, _, f := s.at(path)
	if st := &f.Stat; !f.Exists() || st.Uid != uid || st.Gid != gid || st.Mode != mode {
		s.t.Errorf("%s is shown as %d:%d %o, want %d:%d %o", path, st.Uid, st.Gid, st.Mode, uid, gid, mode)
	}
}

func (s *site) create(dir, name string, obj *Object) {
	s.t.Helper()
	d := s.dir(dir)
	f := d.lookup(name)
	file, err := s.Create(&d.Dir, d.upper(), name, &f, obj)
	must(s.t, err)
	if file != nil {
		file.Close()
	}
	if file == nil != (obj.Mode&unix.S_IFMT != unix.S_IFREG) {
		s.t.Errorf("%s was made open: %v", name, file != nil)
	}
}

// With owner and mode in an xattr, the root of the upper and each new object have the xattr. The
// root of each layer decides for that layer.
func TestOwnersInAttributes(t *testing.T) {
	inNamespace(t)
	s := newSite(t, "", "file plain\nown plain 3 4")
	s.cfg.Permissions = owner.Permissions(2)
	s.remount()
	if s.KeepsMode() || !s.Overrides(Upper) || s.Overrides(1) {
		t.Error("what layers keep is wrong")
	}
	if got := getxattr(t, s.cfg.Upper, override); got != "0:0:0755:dir" {
		t.Errorf("the upper is marked by %q", got)
	}
	s.create("", "file", &Object{Mode: unix.S_IFREG | 0o4751, UID: 5, GID: 6})
	s.create("", "dir", &Object{Mode: unix.S_IFDIR | 0o2755, UID: 5, GID: 6})
	s.create("dir", "dev", &Object{Mode: unix.S_IFCHR | 0o644, Rdev: unix.Mkdev(1, 3), UID: 7, GID: 8})
	s.create("", "link", &Object{Mode: unix.S_IFLNK | 0o777, Target: "x"})
	for range 2 {
		s.wantShown("file", 5, 6, unix.S_IFREG|0o4751)
		s.wantShown("dir", 5, 6, unix.S_IFDIR|0o2755)
		s.wantShown("dir/dev", 7, 6, unix.S_IFCHR|0o644) // the group of its setgid directory
		s.wantShown("plain", 3, 4, unix.S_IFREG|0o644)
		s.cfg.Permissions = nil // found by itself
		s.remount()
	}
	for name, want := range map[string]string{"file": "5:6:04751:file", "dir": "5:6:02755:dir", "dir/dev": "7:6:0644:char-1-3"} {
		if got := getxattr(t, filepath.Join(s.cfg.Upper, name), override); got != want {
			t.Errorf("%s has %q, want %q", name, got, want)
		}
	}
	s.shut()
	s.cfg.Permissions = owner.Permissions(1)
	_, err := Open(s.cfg)
	var e *Error
	if !errors.As(err, &e) || e.Role != roleUpper || !strings.Contains(err.Error(), "in another attribute") {
		t.Errorf("another form: %v", err)
	}
}

// inNamespace makes a stack behave as in a user namespace other than the first.
func inNamespace(t *testing.T) {
	t.Helper()
	isHostRoot = func() bool { return false }
	t.Cleanup(func() { isHostRoot = host.IsHostRoot })
}

// Attributes of namespace user. set the owner of objects in two cases: the daemon's user gains no
// rights by it, or has requested it.
func TestFormsThatOwnersMayWrite(t *testing.T) {
	const privileged, older = "security.fuseoverlayfs.override_stat", "user.fuseoverlayfs.override_stat"
	for _, tt := range []struct {
		name, attr          string
		namespace           bool
		rootOf, permissions int
		counts, refused     bool // refused: by an upper of another form
	}{
		{name: "root", attr: override},
		{name: "root, older form", attr: older},
		{name: "root, another's layer", attr: override, rootOf: 1000},
		{name: "root, privileged form", attr: privileged, counts: true},
		{name: "root, asked for", attr: override, permissions: 2, counts: true},
		{name: "root, older form, asked for", attr: older, permissions: 2, counts: true},
		{name: "root, another's layer, asked for", attr: override, permissions: 2, rootOf: 1000, counts: true},
		{name: "root, the privileged form asked for", attr: override, permissions: 1, refused: true},
		{name: "namespace", attr: override, namespace: true, counts: true},
		{name: "namespace, older form", attr: older, namespace: true, counts: true},
		{name: "namespace, layer from outside", attr: override, namespace: true, rootOf: 65534, counts: true},
		{name: "namespace, another's layer", attr: override, namespace: true, rootOf: 1000},
		{name: "namespace, another's layer, asked for", attr: override, namespace: true, permissions: 2, rootOf: 1000, counts: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.namespace {
				inNamespace(t)
			}
			c := newFolders(t, "file u", "file f", "file g")
			must(t, unix.Setxattr(c.Lowers[0], tt.attr, []byte("0:0:0755:dir"), 0))
			must(t, os.Chown(c.Lowers[0], tt.rootOf, 0))
			must(t, unix.Setxattr(filepath.Join(c.Lowers[0], "f"), tt.attr, []byte("0:0:04755:file"), 0))
			c.Permissions = owner.Permissions(tt.permissions)
			s := openSite(t, c)
			if s.Overrides(1) != tt.counts || s.Overrides(2) {
				t.Errorf("the lower's attribute counts: %v", s.Overrides(1))
			}
			mode := uint32(0o644)
			if tt.counts {
				mode = 0o4755
			}
			s.wantShown("f", 0, 0, unix.S_IFREG|mode)
			if warned := len(s.Warnings()) == 1 && strings.Contains(s.Warnings()[0], c.Lowers[0]); warned == tt.counts {
				t.Errorf("warnings: %q", s.Warnings())
			}
			s.shut()

			c = newFolders(t, "file u", "file f")
			must(t, unix.Setxattr(c.Upper, tt.attr, []byte("0:0:0755:dir"), 0))
			must(t, os.Chown(c.Upper, tt.rootOf, 0))
			c.Permissions = owner.Permissions(tt.permissions)
			if tt.refused {
				_, err := Open(c)
				var e *Error
				if !errors.As(err, &e) || e.Role != roleUpper || !errors.Is(err, errOtherForm) {
					t.Errorf("an upper of another form: %v", err)
				}
				return
			}
			s = openSite(t, c)
			if s.Overrides(Upper) != tt.counts || s.KeepsMode() == tt.counts {
				t.Errorf("the upper's attribute counts: %v", s.Overrides(Upper))
			}
			s.create("", "new", &Object{Mode: unix.S_IFREG | 0o4751, UID: 5, GID: 6})
			if got := getxattr(t, filepath.Join(c.Upper, "new"), tt.attr); (got == "5:6:04751:file") != tt.counts {
				t.Errorf("a new file has %q", got)
			}
		})
	}
}

// Directories in the work directory that another user has made become the daemon's, and are
// emptied.
func TestClaimedWorkDirectory(t *testing.T) {
	c := newFolders(t, "", "file f\nlink g f")
	c.Features.Index = true
	must(t, os.MkdirAll(c.Work, 0o700))
	for _, dir := range []string{workName, indexName} {
		path := filepath.Join(c.Work, dir)
		must(t, os.Mkdir(path, 0o777))
		must(t, os.WriteFile(filepath.Join(path, "#1"), nil, 0o666))
		must(t, os.Chown(path, 1000, 1000))
		must(t, unix.Chmod(path, 0o2777))
	}
	s := openSite(t, c)
	if !s.KeepsLinks() {
		t.Fatal(s.Warnings())
	}
	for _, dir := range []string{workName, indexName} {
		path := filepath.Join(c.Work, dir)
		var st unix.Stat_t
		must(t, unix.Lstat(path, &st))
		if st.Uid != 0 || st.Mode != unix.S_IFDIR|0o700 {
			t.Errorf("%s belongs to %d, mode %o", dir, st.Uid, st.Mode)
		}
		if left, err := os.ReadDir(path); err != nil || len(left) > 0 {
			t.Errorf("left in %s: %v, %v", dir, left, err)
		}
	}
	s.shut()
	for _, dir := range []string{workName, indexName} {
		must(t, os.Chown(filepath.Join(c.Work, dir), 1000, 1000))
		sys.SetFault(func(op sys.Op) error {
			if op.Call == "fchownat" {
				return unix.EPERM
			}
			return nil
		})
		_, err := Open(c)
		sys.SetFault(nil)
		var e *Error
		if !errors.As(err, &e) || e.Role != roleWork || !errors.Is(err, unix.EPERM) {
			t.Errorf("%s that stays another's: %v", dir, err)
		}
		must(t, os.Chown(filepath.Join(c.Work, dir), 0, 0))
	}
}

// The xattr of the upper's root gets the values of the topmost layer that has one.
func TestMarkOfTheUpper(t *testing.T) {
	c := newFolders(t, "", "file f")
	must(t, unix.Setxattr(c.Lowers[0], override, []byte("3:4:0555:dir"), 0))
	c.Permissions = owner.Permissions(2)
	s := openSite(t, c)
	if got := getxattr(t, s.cfg.Upper, override); got != "3:4:0555:dir" {
		t.Errorf("the upper is marked by %q", got)
	}
	if !s.Overrides(1) {
		t.Error("the lower's form was not found")
	}
}

func TestMarkThatCannotBeWritten(t *testing.T) {
	c := newFolders(t, "", "file f")
	c.Permissions = owner.Permissions(2)
	must(t, unix.Setxattr(c.Lowers[0], override, []byte("3:4:0555:dir"), 0))
	must(t, unix.Setxattr(c.Upper, "user.other", nil, 0))
	for _, call := range []string{"setxattr", "getxattr"} {
		sys.SetFault(func(op sys.Op) error {
			if op.Call == call && op.Name == override {
				return unix.EIO
			}
			return nil
		})
		_, err := Open(c)
		sys.SetFault(nil)
		var e *Error
		if !errors.As(err, &e) || e.Role != roleUpper || !errors.Is(err, unix.EIO) {
			t.Errorf("failing %s: %v", call, err)
		}
	}
	must(t, unix.Removexattr(c.Upper, "user.other"))
	c.Permissions = nil
	sys.SetFault(func(op sys.Op) error {
		if op.Call == "getxattr" && op.Name == override {
			return unix.EIO
		}
		return nil
	})
	_, err := Open(c)
	sys.SetFault(nil)
	var e *Error
	if !errors.As(err, &e) || e.Role != roleLower || e.Path != c.Lowers[0] {
		t.Errorf("a lower that cannot be read: %v", err)
	}
}

// Ids are mapped when they are shown and stored. A copy-up keeps those on disk.
func TestMappedIDs(t *testing.T) {
	s := newSite(t, "", "file f\nown f 5 70000\ndir open 0777")
	m, err := owner.ParseMapping("0:200000:65536")
	must(t, err)
	s.cfg.IDs = &owner.IDs{UIDs: m, GIDs: m, OverflowUID: 65534, OverflowGID: 65534}
	s.remount()
	s.wantShown("f", 200005, 65534, unix.S_IFREG|0o644)
	root := s.dir("")
	f := root.lookup("f")
	from, err := root.Layer(f.Layer)
	must(t, err)
	var st sys.Stat
	staged, _, err := s.Stage(&Source{Layer: f.Layer, Ref: from.At("f")}, copyup.Whole(), &st)
	must(t, err)
	must(t, staged.Publish(root.upper(), "f"))
	staged.File().Close()
	s.remount()
	s.wantShown("f", 200005, 65534, unix.S_IFREG|0o644)
	must(t, os.Mkdir(filepath.Join(s.cfg.Upper, "mine"), 0o777))
	s.remount()
	s.create("mine", "new", &Object{Mode: unix.S_IFREG | 0o600, UID: 200007, GID: 200008})
	for name, want := range map[string][2]uint32{"f": {5, 70000}, "mine/new": {7, 8}} {
		var st unix.Stat_t
		must(t, unix.Lstat(filepath.Join(s.cfg.Upper, name), &st))
		if got := [2]uint32{st.Uid, st.Gid}; got != want {
			t.Errorf("%s is on disk %v, want %v", name, got, want)
		}
	}
}

// A daemon that can change owners changes them to the squashed ids. Otherwise it stays the owner.
func TestSquashedIDs(t *testing.T) {
	for _, refusal := range []error{nil, unix.EPERM, unix.EINVAL} {
		s := newSite(t, "dir d", "file f\nown f 3 4")
		s.shut()
		s.cfg.IDs = &owner.IDs{UID: owner.Squash{On: true, ID: 7}, GID: owner.Squash{On: true, ID: 8}}
		var err error
		sys.SetFault(func(op sys.Op) error {
			if op.Call == "fchownat" {
				return refusal
			}
			return nil
		})
		s.Stack, err = Open(s.cfg)
		sys.SetFault(nil)
		must(t, err)
		s.wantShown("f", 7, 8, unix.S_IFREG|0o644)
		s.create("d", "new", &Object{Mode: unix.S_IFREG | 0o600, UID: 99, GID: 99})
		s.wantShown("d/new", 7, 8, unix.S_IFREG|0o600)
		var st unix.Stat_t
		must(t, unix.Lstat(filepath.Join(s.cfg.Upper, "d/new"), &st))
		if keeps := st.Uid == 0 && st.Gid == 0; keeps != (refusal != nil) {
			t.Errorf("after %v a new file belongs to %d:%d", refusal, st.Uid, st.Gid)
		}
	}
	s := newSite(t, "", "file f")
	s.cfg.IDs = &owner.IDs{UID: owner.Squash{On: true, ID: 7}}
	s.shut()
	sys.SetFault(func(op sys.Op) error {
		if op.Call == "fchownat" {
			return unix.EIO
		}
		return nil
	})
	_, err := Open(s.cfg)
	sys.SetFault(nil)
	if !errors.Is(err, unix.EIO) {
		t.Errorf("a failing disk: %v", err)
	}
}
