package owner

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/sys"
	"github.com/fuse-overlay/fuse-overlay/internal/testkit"
)

var must = testkit.Must

// place makes an empty upper and opens it.
func place(t *testing.T) *sys.Dir {
	t.Helper()
	upper, work := filepath.Join(t.TempDir(), "upper"), filepath.Join(t.TempDir(), "work")
	must(t, os.Mkdir(upper, 0o755))
	must(t, os.Mkdir(work, 0o755))
	d, w, err := sys.OpenUpper(upper, work, 0)
	must(t, err)
	t.Cleanup(func() { d.Close(); w.Close() })
	return d
}

func wantStat(t *testing.T, r Ref, uid, gid, mode uint32, rdev uint64) {
	t.Helper()
	var st sys.Stat
	must(t, r.Stat(&st))
	if st.Uid != uid || st.Gid != gid || st.Mode != mode || st.Rdev != rdev {
		t.Errorf("shown as %d:%d %o %x, want %d:%d %o %x", st.Uid, st.Gid, st.Mode, st.Rdev, uid, gid, mode, rdev)
	}
}

func TestOwnerInAnAttribute(t *testing.T) {
	for _, form := range forms {
		t.Run(form.attr, func(t *testing.T) {
			d := place(t)
			s := NewScheme(nil, form)
			inode := s.Inode(unix.S_IFCHR | 0o666)
			if inode != unix.S_IFREG|0o600 {
				t.Fatalf("a device is to be made with mode %o", inode)
			}
			f, err := d.CreateFile("dev", inode&0o7777)
			must(t, err)
			f.Close()
			r := s.On(d.At("dev"))
			dev := sys.Stat{Uid: 5, Gid: 6, Mode: unix.S_IFCHR | 0o666, Rdev: unix.Mkdev(1, 3)}
			if ok, err := r.Record(&dev); !ok || err != nil {
				t.Fatal(ok, err)
			}
			wantStat(t, r, 5, 6, unix.S_IFCHR|0o666, dev.Rdev)
			must(t, r.Chmod(0o6751))
			wantStat(t, r, 5, 6, unix.S_IFCHR|0o6751, dev.Rdev)
			must(t, r.Chown(8, sys.Unchanged)) // clears set-user-id and set-group-id
			wantStat(t, r, 8, 6, unix.S_IFCHR|0o751, dev.Rdev)
			var st sys.Stat
			must(t, r.Inode().Stat(&st))
			if st.Mode != unix.S_IFREG|0o600 || st.Uid != 0 || st.Gid != 0 {
				t.Errorf("the inode has become %d:%d %o", st.Uid, st.Gid, st.Mode)
			}
		})
	}
}

func TestObjectsWithoutTheAttribute(t *testing.T) {
	d := place(t)
	s := NewScheme(nil, containers)
	must(t, d.Mkdir("dir", 0o751))
	must(t, d.Symlink("nowhere", "link"))
	must(t, d.Mknod("fifo", unix.S_IFIFO|0o640, 0))
	wantStat(t, s.On(d.At("dir")), 0, 0, unix.S_IFDIR|0o751, 0)
	wantStat(t, s.On(d.At("link")), 0, 0, unix.S_IFLNK|0o777, 0)
	wantStat(t, s.On(d.At("fifo")), 0, 0, unix.S_IFIFO|0o640, 0)
	if ok, err := s.On(d.At("link")).Record(&sys.Stat{Mode: unix.S_IFLNK | 0o777}); ok || err != nil {
		t.Errorf("a symbolic link has the attribute of namespace user.: %v, %v", ok, err)
	}
	must(t, s.On(d.At("link")).Chown(7, 8))
	wantStat(t, s.On(d.At("link")), 7, 8, unix.S_IFLNK|0o777, 0)
	must(t, s.On(d.At("dir")).Chown(7, sys.Unchanged)) // sets the attribute
	wantStat(t, s.On(d.At("dir")), 7, 0, unix.S_IFDIR|0o751, 0)
	must(t, d.At("dir").SetXattr(containers.attr, []byte("nonsense"), 0))
	var st sys.Stat
	if err := s.On(d.At("dir")).Stat(&st); err != unix.EIO {
		t.Errorf("Stat with an invalid attribute: %v", err)
	}
	if err := s.On(d.At("dir")).Chmod(0o700); err != unix.EIO {
		t.Errorf("Chmod with an invalid attribute: %v", err)
	}
}

func TestIDsAndAttributeTogether(t *testing.T) {
	d := place(t)
	s := NewScheme(mapped(t, "0:200000:65536", "0:300000:65536"), containers)
	f, err := d.CreateFile("f", 0o600)
	must(t, err)
	f.Close()
	r := s.On(d.At("f"))
	must(t, r.Chown(200033, 300044))
	wantStat(t, r, 200033, 300044, unix.S_IFREG|0o600, 0)
	text, err := d.At("f").GetXattr(containers.attr)
	must(t, err)
	if string(text) != "33:44:0600:file" {
		t.Errorf("the attribute is %s", text)
	}
}

func TestAttributeNames(t *testing.T) {
	d := place(t)
	for _, form := range forms {
		must(t, d.Mkdir(form.attr, 0o700))
		r := NewScheme(nil, form).On(d.At(form.attr))
		must(t, r.Chown(1, 2))
		must(t, r.SetXattr("security.test", []byte("s"), 0))
		must(t, r.SetXattr("user.test", []byte("u"), 0))
		names, err := r.ListXattr()
		must(t, err)
		slices.Sort(names)
		if want := []string{"security.test", "user.test"}; !slices.Equal(names, want) {
			t.Errorf("%s: %q are listed, want %q", form.attr, names, want)
		}
		if v, err := r.GetXattr("security.test"); err != nil || string(v) != "s" {
			t.Errorf("%s: security.test: %q, %v", form.attr, v, err)
		}
		onDisk, err := r.Inode().ListXattr()
		must(t, err)
		if slices.Contains(onDisk, "security.test") == (form == containers) {
			t.Errorf("%s: on disk there are %q", form.attr, onDisk)
		}
		if err := r.SetXattr(form.attr, []byte("0:0:07777:file"), 0); err != unix.EPERM {
			t.Errorf("%s can be set: %v", form.attr, err)
		}
		if _, err := r.GetXattr(form.attr); err != unix.ENODATA {
			t.Errorf("%s can be read: %v", form.attr, err)
		}
		if err := r.RemoveXattr(form.attr); err != unix.ENODATA {
			t.Errorf("%s can be removed: %v", form.attr, err)
		}
		must(t, r.RemoveXattr("security.test"))
		if _, err := r.GetXattr("security.test"); err != unix.ENODATA {
			t.Errorf("%s: security.test after its removal: %v", form.attr, err)
		}
	}
}

func TestDetect(t *testing.T) {
	for _, form := range forms {
		d := place(t)
		if got, err := Detect(d.Ref(), nil); got != nil || err != nil {
			t.Errorf("%v, %v in a plain directory", got, err)
		}
		must(t, d.Ref().SetXattr(form.attr, []byte("0:0:0755:dir"), 0))
		if got, err := Detect(d.Ref(), nil); got != form || err != nil {
			t.Errorf("%v, %v, want %s", got, err, form.attr)
		}
		if got, err := Detect(d.Ref(), (*Override).ByOwner); (got == nil) != form.ByOwner() || err != nil {
			t.Errorf("%v, %v without forms of namespace user., the root has %s", got, err, form.attr)
		}
		must(t, d.Ref().SetXattr(privileged.attr, []byte("0:0:0755:dir"), 0))
		if got, err := Detect(d.Ref(), (*Override).ByOwner); got != privileged || err != nil {
			t.Errorf("%v, %v, want %s beside %s", got, err, privileged.attr, form.attr)
		}
	}
	if Permissions(0) != nil || Permissions(1) != privileged || Permissions(2) != containers {
		t.Error("the forms of xattr_permissions are mixed up")
	}
}

// TestSymlinkThatStays checks that Chown returns nil if the daemon may not change the owner of a
// symbolic link. It must return any other error.
func TestSymlinkThatStays(t *testing.T) {
	d := place(t)
	must(t, d.Symlink("nowhere", "link"))
	r := NewScheme(nil, containers).On(d.At("link"))
	for errno, want := range map[unix.Errno]error{
		unix.EPERM: nil, unix.EINVAL: nil, unix.EIO: unix.EIO, unix.EROFS: unix.EROFS,
	} {
		sys.SetFault(func(op sys.Op) error {
			if op.Call == "fchownat" {
				return errno
			}
			return nil
		})
		err := r.Chown(7, 8)
		sys.SetFault(nil)
		if err != want {
			t.Errorf("%v is returned as %v", errno, err)
		}
	}
	wantStat(t, r, 0, 0, unix.S_IFLNK|0o777, 0)
}

// TestNoScheme checks that there is no scheme without ids to map and without an attribute, and that
// calls then reach the inode.
func TestNoScheme(t *testing.T) {
	s := NewScheme(&IDs{}, nil)
	if s != nil || s.Overrides() || s.Inode(unix.S_IFBLK|0o4755) != unix.S_IFBLK|0o4755 {
		t.Fatal("there is a scheme")
	}
	d := place(t)
	must(t, d.Mkdir("d", 0o700))
	r := s.On(d.At("d"))
	must(t, r.Chown(3, 4))
	must(t, r.Chmod(0o711))
	wantStat(t, r, 3, 4, unix.S_IFDIR|0o711, 0)
	must(t, r.SetXattr("user.a", []byte("b"), 0))
	if v, err := r.GetXattr("user.a"); err != nil || string(v) != "b" {
		t.Errorf("%q, %v", v, err)
	}
	must(t, r.RemoveXattr("user.a"))
	if ok, err := r.Record(&sys.Stat{}); ok || err != nil {
		t.Errorf("recorded: %v, %v", ok, err)
	}
}
