package stack

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/ondisk"
	"github.com/fuse-overlay/fuse-overlay/internal/owner"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
	"github.com/fuse-overlay/fuse-overlay/internal/testkit"
)

const linkedLower = "file d/f \"text\"\nlink d/g d/f\nlink e/h d/f\nsymlink d/l x\nlink e/l d/l"

func newLinked(t *testing.T) *site {
	t.Helper()
	c := newFolders(t, "dir d\ndir e", linkedLower)
	c.Features.Index = true
	return openSite(t, c)
}

// linkUp makes a name a link of the copy.
func (s *site) linkUp(path string) error {
	s.t.Helper()
	m, name, f := s.at(path)
	if f.State != InLower || f.Layer != Upper {
		s.t.Fatalf("%s: %+v", path, f)
	}
	return s.LinkUp(&m.Dir, m.upper(), name, f.Shared)
}

// wantLinks fails the test if names do not lead to one object with that many links and with one
// origin.
func (s *site) wantLinks(what string, links int, paths ...string) {
	s.t.Helper()
	var first Found
	for i, path := range paths {
		m, name, f := s.at(path)
		if f.State == InUpper {
			var st sys.Stat
			if found, err := s.origin(m, name, &f, &st); !found || err != nil || f.Shared == nil {
				s.t.Errorf("%s: the origin of %s is not found: %v", what, path, err)
				continue
			}
		}
		if i == 0 {
			first = f
		}
		if f.Stat.Ino != first.Stat.Ino || int(f.Stat.Nlink) != links || f.Shared == nil || f.Shared.Ino != first.Shared.Ino {
			s.t.Errorf("%s: %s is %d with %d links, %+v; want %d with %d", what, path, f.Stat.Ino, f.Stat.Nlink, f.Shared, first.Stat.Ino, links)
		}
	}
}

func (s *site) copies() []string {
	s.t.Helper()
	entries, err := os.ReadDir(filepath.Join(s.cfg.Work, indexName))
	must(s.t, err)
	var names []string
	shared := sharedDevice(s.t, filepath.Join(s.cfg.Work, indexName))
	for _, e := range entries {
		if e.Name() == shared {
			continue
		}
		names = append(names, e.Name())
	}
	return names
}

// All names lead to the copy, with one count, whichever of them are links of it. The copy goes with
// the last name.
func TestNamesOfACopy(t *testing.T) {
	s := newLinked(t)
	all := []string{"d/f", "d/g", "e/h"}
	s.wantLinks("before", 3, all...)
	s.copyUp("d/f")
	for range 2 {
		s.wantLinks("copied up", 3, all...)
		s.remount()
	}
	must(t, s.linkUp("d/f"))
	must(t, s.linkUp("e/h"))
	s.wantLinks("linked up", 3, all...)
	for i, path := range []string{"d/f", "e/h", "d/g"} {
		if path == "d/g" {
			must(t, s.linkUp(path))
		}
		m, name, f := s.at(path)
		var st sys.Stat
		if _, err := s.origin(m, name, &f, &st); err != nil {
			t.Fatal(err)
		}
		must(t, s.RecordLinks(f.Shared))
		must(t, s.Remove(&m.Dir, m.upper(), name, &f))
		s.LinkRemoved(f.Shared)
		if left := len(s.copies()); left != map[bool]int{true: 1, false: 0}[i < 2] {
			t.Errorf("after removing %s there are %d copies", path, left)
		}
		s.remount()
	}
}

// A stop at any call of a link leaves counts that are right.
func TestEveryFaultOfLinkUp(t *testing.T) {
	for _, stop := range []bool{false, true} {
		for i, fired := 0, true; fired; i++ {
			s := newLinked(t)
			s.copyUp("d/f")
			m, name, f := s.at("e/h")
			up, err := m.upper(), error(nil)
			fired = faulty(i, unix.EIO, stop, func() { err = s.LinkUp(&m.Dir, up, name, f.Shared) })
			if err != nil && err != unix.EIO {
				t.Errorf("call %d: %v", i, err)
			}
			where := fmt.Sprintf("call %d, stop %v", i, stop)
			if !stop {
				must(t, s.RecordLinks(f.Shared))
			}
			s.remount()
			s.wantLinks(where, 3, "d/f", "d/g", "e/h")
			if s.dir("e").lookup("h").State == InLower {
				must(t, s.linkUp("e/h"))
			}
			s.wantLinks(where+", second try", 3, "d/f", "d/g", "e/h")
			s.shut()
		}
	}
}

// Only regular files have xattrs user.*, so other objects have no link count there.
func TestLinksOfUserAttributes(t *testing.T) {
	s := newLinked(t)
	if f := s.dir("d").lookup("l"); f.Shared == nil {
		t.Error("a symbolic link is not shared")
	}
	s.xattrs = ondisk.User
	if f := s.dir("d").lookup("l"); f.Shared != nil {
		t.Error("a symbolic link is shared")
	}
	if f := s.dir("d").lookup("f"); f.Shared == nil {
		t.Error("a file is not shared")
	}
}

// The index is checked before anything is changed.
func TestIndexIsChecked(t *testing.T) {
	s := newLinked(t)
	s.copyUp("d/f")
	must(t, s.linkUp("d/f"))
	copied := s.copies()[0]
	s.shut()
	dir := filepath.Join(s.cfg.Work, indexName)
	other := newFolders(t, "", "")
	open := func(c Config) error {
		o, err := Open(c)
		if err == nil {
			o.Close()
		}
		return err
	}
	otherLower, otherUpper := s.cfg, s.cfg
	otherLower.Lowers, otherUpper.Upper = other.Lowers, other.Upper
	before := testkit.Snapshot(t, s.cfg.Upper) + testkit.Snapshot(t, s.cfg.Work)
	if err := open(otherLower); !errors.Is(err, errOtherLower) {
		t.Errorf("another lower: %v", err)
	}
	if err := open(otherUpper); !errors.Is(err, errOtherUpper) {
		t.Errorf("another upper: %v", err)
	}
	if d := testkit.Diff(before, testkit.Snapshot(t, s.cfg.Upper)+testkit.Snapshot(t, s.cfg.Work)); d != "" {
		t.Errorf("changed:\n%s", d)
	}
	for what, c := range map[string]struct {
		spoil func() error
		fails bool
	}{
		"a staged object of the kernel's": {func() error { return os.MkdirAll(filepath.Join(dir, "#1/x"), 0o700) }, false},
		"a whiteout, of nfs_export=on": {func() error {
			return unix.Mknod(filepath.Join(dir, "00fb"+copied[4:len(copied)-2]+"77"), unix.S_IFCHR, 0)
		}, false},
		"another origin": {func() error {
			return os.Rename(filepath.Join(dir, copied), filepath.Join(dir, copied[:len(copied)-2]+"77"))
		}, false},
		"no name of an entry": {func() error { return os.WriteFile(filepath.Join(dir, "nonsense"), nil, 0o600) }, true},
		"no origin": {func() error {
			return os.WriteFile(filepath.Join(dir, copied[:len(copied)-2]+"66"), nil, 0o600)
		}, true},
	} {
		must(t, c.spoil())
		err := open(s.cfg)
		if (err != nil) != c.fails {
			t.Errorf("%s: %v", what, err)
		}
		must(t, os.RemoveAll(dir))
		must(t, os.RemoveAll(filepath.Join(s.cfg.Upper, "d/f")))
		s.open()
		s.copyUp("d/f")
		must(t, s.linkUp("d/f"))
		copied = s.copies()[0]
		s.shut()
	}
}

// Entries are removed if their object has lost all names, or if its lower is gone. They stay if
// that is not known.
func TestUselessEntries(t *testing.T) {
	for what, c := range map[string]struct {
		spoil func(s *site)
		fault unix.Errno
		left  int
	}{
		"used":            {func(*site) {}, 0, 1},
		"no links":        {func(s *site) { s.setLinks("U-1") }, 0, 0},
		"no links, lower": {func(s *site) { s.setLinks("L-3") }, 0, 0},
		"lower gone": {func(s *site) {
			must(s.t, os.RemoveAll(s.cfg.Lowers[0]+"/d"))
			must(s.t, os.RemoveAll(s.cfg.Lowers[0]+"/e"))
		}, 0, 0},
		"no right": {func(s *site) { s.setLinks("L-3") }, unix.EPERM, 1},
		"nonsense": {func(s *site) { s.setLinks("nonsense") }, 0, 1},
	} {
		s := newLinked(t)
		s.copyUp("d/f")
		c.spoil(s)
		s.shut()
		if c.fault == 0 {
			s.open()
		} else {
			must(t, failing("open_by_handle_at", c.fault, func() (err error) { s.Stack, err = Open(s.cfg); return err }))
		}
		if left := s.copies(); len(left) != c.left {
			t.Errorf("%s: left %v", what, left)
		}
	}
}

func (s *site) setLinks(text string) {
	path := filepath.Join(s.cfg.Work, indexName, s.copies()[0])
	must(s.t, unix.Lsetxattr(path, "trusted.overlay.nlink", []byte(text), 0))
}

// Every call of a mount with an index fails once; the next mount finds all as it was.
func TestEveryFaultOfOpenWithIndex(t *testing.T) {
	s := newLinked(t)
	s.copyUp("d/f")
	must(t, s.linkUp("d/f"))
	s.shut()
	for i, fired := 0, true; fired; i++ {
		must(t, os.MkdirAll(filepath.Join(s.cfg.Work, indexName, "#1/x"), 0o700))
		fds, err := openFDs(t), error(nil)
		fired = faulty(i, unix.EIO, false, func() {
			var o *Stack
			if o, err = Open(s.cfg); err == nil {
				o.Close()
			}
		})
		if err != nil && (!errors.Is(err, unix.EIO) || !strings.Contains(err.Error(), "dir \"/")) {
			t.Errorf("call %d: %v", i, err)
		}
		if now := openFDs(t); now != fds {
			t.Fatalf("call %d: %d descriptors are left open", i, now-fds)
		}
		s.open()
		s.wantLinks(fmt.Sprint("call ", i), 3, "d/f", "d/g", "e/h")
		s.shut()
	}
}

// A daemon that cannot change xattrs of files of mode 0 has no index.
func TestIndexOfAPlainUser(t *testing.T) {
	c := newFolders(t, "", linkedLower)
	c.Features.Index = true
	for errno, want := range map[unix.Errno]bool{unix.EACCES: true, unix.EIO: false} {
		sys.SetFault(func(op sys.Op) error {
			if op.Call == "setxattr" && op.Name == "trusted.overlay.nlink" {
				return errno
			}
			return nil
		})
		s, err := Open(c)
		sys.SetFault(nil)
		if (err == nil) != want {
			t.Errorf("%v: %v", errno, err)
		}
		if err == nil {
			if s.KeepsLinks() || len(s.Warnings()) != 1 {
				t.Errorf("%v: %v", errno, s.Warnings())
			}
			s.Close()
		}
		// A mount that fails removes the directory if it has made it.
		left, err := os.ReadDir(filepath.Join(c.Work, workName))
		if err != nil && !(errors.Is(err, os.ErrNotExist) && !want) || len(left) > 0 {
			t.Errorf("%v: left %v, %v", errno, left, err)
		}
	}
}

func TestWithoutIndex(t *testing.T) {
	for what, change := range map[string]func(c *Config){
		"read-only":  func(c *Config) { c.Upper, c.Work = "", "" },
		"attributes": func(c *Config) { c.Permissions = owner.Permissions(2) },
	} {
		c := newFolders(t, "", linkedLower)
		c.Features.Index = true
		change(&c)
		s := openSite(t, c)
		if s.KeepsLinks() || len(s.Warnings()) != map[bool]int{true: 1, false: 0}[c.Upper != ""] {
			t.Errorf("%s: %v", what, s.Warnings())
		}
	}
}
