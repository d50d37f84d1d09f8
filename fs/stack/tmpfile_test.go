package stack

import (
	"fmt"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/testkit"
)

// An unlinked file shows nowhere until it is linked, over nothing or over a whiteout. Then it
// has the owner and the mode that were requested, as a file that is made under a name.
func TestCreateTmpfile(t *testing.T) {
	for _, where := range []struct{ what, upper, lower string }{
		{"over nothing", "", ""}, {"over a whiteout", "white x", "file x old"}, {"over a marker", "file .wh.x", "file x old"},
	} {
		for _, o := range []Object{
			{Mode: unix.S_IFREG | 0o640}, {Mode: unix.S_IFREG | 0o666, Umask: 0o027}, {Mode: unix.S_IFREG | 0o600, UID: 1, GID: 2},
			{Mode: unix.S_IFREG | 0o4755, UID: 1},
		} {
			s := newSite(t, where.upper, where.lower)
			before := testkit.Snapshot(t, s.cfg.Upper)
			root := s.dir("").withNames()
			file, err := s.CreateTmpfile(&root.Dir, root.upper(), &o)
			must(t, err)
			_, err = file.Pwrite([]byte("text"), 0)
			must(t, err)
			if d := testkit.Diff(before, testkit.Snapshot(t, s.cfg.Upper)); d != "" {
				t.Errorf("%s: it shows in the upper:\n%s", where.what, d)
			}
			s.wantEmptyWork()
			f := root.lookup("x")
			if f.Exists() {
				t.Errorf("%s: it shows: %+v", where.what, f)
			}
			must(t, s.Link(&root.Dir, root.upper(), "x", &f, file.Ref(), o.Mode))
			file.Close()
			root.wantExact(where.what)
			line := fmt.Sprintf("file x %04o \"text\"", o.Mode&0o7777&^o.Umask)
			if o.UID != 0 {
				line += fmt.Sprintf(" own %d %d", o.UID, o.GID)
			}
			if got := s.view(); got != line {
				t.Errorf("%s: the stack shows %q, want %q", where.what, got, line)
			}
			s.wantEmptyWork()
		}
	}
}

// An unlinked file takes the default ACL of the directory that it is made in.
func TestTmpfileInheritsACL(t *testing.T) {
	s := newSite(t, "dir d", "")
	must(t, unix.Setxattr(filepath.Join(s.cfg.Upper, "d"), defaultACL, []byte(aclText("u::rwx,u:7:rwx,g::r-x,m::rwx,o::---")), 0))
	d := s.dir("d")
	for i, uid := range []uint32{0, 1} {
		o := Object{Mode: unix.S_IFREG | 0o666, Umask: 0o077, UID: uid}
		file, err := s.CreateTmpfile(&d.Dir, d.upper(), &o)
		must(t, err)
		linked, named := fmt.Sprint("linked", i), fmt.Sprint("named", i)
		f := d.lookup(linked)
		must(t, s.Link(&d.Dir, d.upper(), linked, &f, file.Ref(), o.Mode))
		file.Close()
		f = d.lookup(named)
		file, err = s.Create(&d.Dir, d.upper(), named, &f, &o)
		must(t, err)
		file.Close()
		got, want := describe(t, filepath.Join(s.cfg.Upper, "d", linked)), describe(t, filepath.Join(s.cfg.Upper, "d", named))
		if got != want {
			t.Errorf("owner %d: %s, named %s", uid, got, want)
		}
	}
}

// Each call that fails is an error, and nothing stays open.
func TestTmpfileFaults(t *testing.T) {
	s := newSite(t, "", "")
	root := s.dir("")
	root.upper()
	for _, uid := range []uint32{0, 1} {
		o := Object{Mode: unix.S_IFREG | 0o640, UID: uid}
		before := openFDs(t)
		for i := 0; ; i++ {
			root.ForgetDefaultACL()
			var err error
			fired := faulty(i, unix.EIO, false, func() {
				file, e := s.CreateTmpfile(&root.Dir, root.upper(), &o)
				if err = e; e == nil {
					file.Close()
				}
			})
			if fired && err != unix.EIO || !fired && err != nil {
				t.Errorf("owner %d, call %d fails: %v", uid, i, err)
			}
			if after := openFDs(t); after != before {
				t.Fatalf("owner %d, call %d fails: %d descriptors are left", uid, i, after-before)
			}
			if !fired {
				break
			}
		}
		err := failing("openat", unix.EOPNOTSUPP, func() error { _, err := s.CreateTmpfile(&root.Dir, root.upper(), &o); return err })
		if err != unix.EOPNOTSUPP {
			t.Errorf("no such files: %v", err)
		}
	}
}
