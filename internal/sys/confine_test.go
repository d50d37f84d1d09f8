package sys

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/testkit"
)

// No path leads out of the layer, whatever lies in it, and both ways of walking return the same.
func TestConfinement(t *testing.T) {
	d, path := layer(t)
	secret := t.TempDir()
	write(t, filepath.Join(secret, "in/secret"), "s")
	write(t, filepath.Join(path, "a/b/file"), "f")
	for name, target := range map[string]string{
		"abs": secret, "up": "../..", "a/up": "../../..", "inside": "a", "a/b/loop": "loop", "dangling": "nothing",
	} {
		must(t, os.Symlink(target, filepath.Join(path, name)))
	}
	cases := []struct {
		path string
		want error
	}{
		{"", nil}, {"a", nil}, {"a/b", nil},
		{"..", unix.EXDEV}, {"../x", unix.EXDEV}, {"a/../..", unix.EXDEV}, {"a/b/../../..", unix.EXDEV},
		{"/", unix.EXDEV}, {"/etc", unix.EXDEV}, {secret, unix.EXDEV},
		{"abs", unix.ENOTDIR}, {"up", unix.ENOTDIR}, {"inside", unix.ENOTDIR}, {"dangling", unix.ENOTDIR},
		{"abs/in", unix.ELOOP}, {"up/etc", unix.ELOOP}, {"a/up/etc", unix.ELOOP}, {"inside/b", unix.ELOOP},
		{"a/b/loop/x", unix.ELOOP}, {"dangling/x", unix.ELOOP},
		{"nothing", unix.ENOENT}, {"nothing/b", unix.ENOENT}, {"a/b/file", unix.ENOTDIR}, {"a/b/file/x", unix.ENOTDIR},
		{strings.Repeat("x", 256), unix.ENAMETOOLONG}, {strings.Repeat("x", 5000), unix.ENAMETOOLONG}, {"a\x00b", unix.EINVAL},
	}
	bothWalks(t, func(t *testing.T) {
		fds := openFDs(t)
		for _, c := range cases {
			sub, err := d.OpenDir(c.path)
			if err != c.want {
				t.Errorf("OpenDir(%.40q): %v, want %v", c.path, err, c.want)
			}
			if err != nil {
				continue
			}
			var plain unix.Stat_t
			must(t, unix.Stat(filepath.Join(path, c.path), &plain))
			if st := statOf(t, sub.Ref()); st.Ino != plain.Ino || st.Dev != plain.Dev {
				t.Errorf("OpenDir(%q) opened something else", c.path)
			}
			sub.Close()
		}
		if n := openFDs(t); n != fds {
			t.Errorf("%d descriptors, want %d", n, fds)
		}
	})
}

// The magic links of /proc, which no RESOLVE_BENEATH path alone would catch.
func TestMagicLinks(t *testing.T) {
	d := openPlain(t, "/proc/self")
	bothWalks(t, func(t *testing.T) {
		for path, e := range map[string]error{
			"root": unix.ENOTDIR, "cwd": unix.ENOTDIR, "root/etc": unix.ELOOP, "cwd/x": unix.ELOOP, "fd/0/x": unix.ELOOP,
		} {
			_, err := d.OpenDir(path)
			want(t, "OpenDir("+path+")", err, e)
		}
	})
}

// A name is one component, for every call.
func TestNames(t *testing.T) {
	d, path := layer(t)
	write(t, filepath.Join(path, "sub/file"), "f")
	write(t, filepath.Join(path, "file"), "f")
	sub, err := d.OpenDir("sub")
	must(t, err)
	defer sub.Close()
	now := unix.Timespec{Sec: 1}
	for _, bad := range []string{"", ".", "..", "/", "../file", "/etc/passwd", "x/..", "sub/file", "a\x00b"} {
		r := sub.At(bad)
		var st Stat
		var fs unix.Statfs_t
		calls := map[string]error{
			"Stat": r.Stat(&st), "Statfs": r.Statfs(&fs), "Chmod": r.Chmod(0o777), "Chown": r.Chown(1, 1),
			"Utimes": r.Utimes(now, now), "SetXattr": r.SetXattr("user.x", nil, 0), "RemoveXattr": r.RemoveXattr("user.x"),
			"Mkdir": sub.Mkdir(bad, 0o755), "Mknod": sub.Mknod(bad, unix.S_IFREG, 0), "Symlink": sub.Symlink("x", bad),
			"Unlink": sub.Unlink(bad), "Rmdir": sub.Rmdir(bad), "Link": sub.Link(sub.At("file"), bad),
			"Link from": sub.Link(r, "new"), "Rename": sub.Rename("file", sub, bad, 0), "Rename from": sub.Rename(bad, sub, "new", 0),
			"Rename exchange": sub.Rename("file", sub, bad, unix.RENAME_EXCHANGE),
		}
		_, calls["Readlink"] = r.Readlink()
		_, calls["GetXattr"] = r.GetXattr("user.x")
		_, calls["ListXattr"] = r.ListXattr()
		_, calls["Open"] = r.Open()
		_, calls["OpenFile"] = r.OpenFile(unix.O_RDWR)
		_, calls["CreateFile"] = sub.CreateFile(bad, 0o600)
		for name, err := range calls {
			if err != unix.EINVAL {
				t.Errorf("%s(%q): %v, want EINVAL", name, bad, err)
			}
		}
	}
	if st := statOf(t, d.At("file")); st.Mode&0o777 != 0o644 || st.Uid != 0 {
		t.Errorf("the file outside was changed: %o %d", st.Mode, st.Uid)
	}
}

// A path longer than PATH_MAX.
func TestLongPath(t *testing.T) {
	d, _ := layer(t)
	name := strings.Repeat("n", 99)
	at, err := d.OpenDir("")
	must(t, err)
	var path []string
	for range 120 {
		must(t, at.Mkdir(name, 0o755))
		next, err := at.OpenDir(name)
		must(t, err)
		at.Close()
		at = next
		path = append(path, name)
	}
	defer at.Close()
	deepest := statOf(t, at.Ref())
	bothWalks(t, func(t *testing.T) {
		fds := openFDs(t)
		got, err := d.OpenDir(strings.Join(path, "/"))
		must(t, err)
		if st := statOf(t, got.Ref()); st.Ino != deepest.Ino {
			t.Errorf("opened %d, want %d", st.Ino, deepest.Ino)
		}
		got.Close()
		_, err = d.OpenDir(strings.Join(path, "/") + "/nothing")
		want(t, "nothing below", err, unix.ENOENT)
		_, err = d.OpenDir("nothing/" + strings.Join(path, "/"))
		want(t, "nothing above", err, unix.ENOENT)
		if n := openFDs(t); n != fds {
			t.Errorf("%d descriptors, want %d", n, fds)
		}
	})
}

// A directory that may be searched and not listed still leads on.
func TestSearchOnlyDirectory(t *testing.T) {
	d, path := layer(t)
	write(t, filepath.Join(path, "x/file"), "f")
	must(t, os.Chmod(filepath.Join(path, "x"), 0o711))
	must(t, os.Mkdir(filepath.Join(path, "closed"), 0o700))
	testkit.AsUser(t, plainUser, func() {
		x, err := d.OpenDir("x")
		if err != nil {
			t.Error(err)
			return
		}
		defer x.Close()
		var st Stat
		want(t, "stat", x.At("file").Stat(&st), nil)
		want(t, "list", x.List(func(Dirent) error { return nil }), unix.EACCES)
		want(t, "sync", x.Sync(), unix.EACCES)
		_, err = d.OpenDir("closed/y")
		want(t, "below a closed directory", err, unix.EACCES)
	})
	x, err := d.OpenDir("x")
	must(t, err)
	x.Close()

	// as root, by a descriptor that is for searching only
	fd, err := openBeneath(d.fd, "x", unix.O_PATH|unix.O_DIRECTORY, beneath)
	must(t, err)
	path0 := &Dir{Object: Object{fd}}
	defer path0.Close()
	want(t, "sync", path0.Sync(), nil)
}
