package fs

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/sys"
	"github.com/fuse-overlay/fuse-overlay/internal/testkit"
)

// number is the st_ino of a path; 0: the path does not exist. It fails the test if a listing has
// another number.
func (s *site) number(p string) uint64 {
	s.t.Helper()
	id, err := s.walk(p)
	if err == unix.ENOENT {
		return 0
	}
	must(s.t, err)
	a, err := s.getattr(id)
	must(s.t, err)
	dir, err := s.walk(filepath.Dir(p))
	must(s.t, err)
	entries, err := s.list(dir, 64<<10)
	must(s.t, err)
	for _, e := range entries {
		if e.name == filepath.Base(p) && e.ino != a.Ino {
			s.t.Errorf("%s is listed as %#x and is %#x", p, e.ino, a.Ino)
		}
	}
	return a.Ino
}

// moves are changes by which objects of lowers come up, and may get other names.
var moves = []struct {
	name      string
	redirects bool
	send      func(s *site) request
	from, to  []string // names of objects before, and after
}{
	{name: "write", send: func(s *site) request { return s.write("d/f", 0, "x") }, from: []string{"d/f"}, to: []string{"d/f"}},
	{name: "chmod a directory", send: func(s *site) request { return s.chmod("p/q", 0o700) }, from: []string{"p/q"}, to: []string{"p/q"}},
	{name: "chown a link", send: func(s *site) request { return s.chown("d/l", 1, 1) }, from: []string{"d/l"}, to: []string{"d/l"}},
	{name: "chmod a fifo", send: func(s *site) request { return s.chmod("d/p", 0o600) }, from: []string{"d/p"}, to: []string{"d/p"}},
	{name: "rename", send: func(s *site) request { return s.rename("d/f", "e/g", 0) }, from: []string{"d/f"}, to: []string{"e/g"}},
	{name: "rename of what is up", send: func(s *site) request {
		s.do(s.write("d/f", 0, "x"))
		return s.rename("d/f", "e/g", 0)
	}, from: []string{"d/f"}, to: []string{"e/g"}},
	{name: "replace", send: func(s *site) request { return s.rename("d/f", "e/x", 0) }, from: []string{"d/f"}, to: []string{"e/x"}},
	{name: "link", send: func(s *site) request { return s.link("d/f", "e/g") }, from: []string{"d/f"}, to: []string{"d/f"}},
	{name: "exchange", send: func(s *site) request { return s.rename("d/f", "e/x", unix.RENAME_EXCHANGE) },
		from: []string{"d/f", "e/x"}, to: []string{"e/x", "d/f"}},
	{name: "rename a directory", redirects: true, send: func(s *site) request { return s.rename("p/q", "e/q", 0) },
		from: []string{"p/q", "p/q/in"}, to: []string{"e/q", "e/q/in"}},
}

const moved = "file d/f \"text\"\nsymlink d/l t\nfifo d/p\nfile e/x\nfile p/q/in\nfile d/double\nlink e/double d/double"

// An object keeps its inode number when it is copied up, whatever happens with it then, and after a
// remount.
func TestNumbersStayOverRemounts(t *testing.T) {
	withoutRanks(t)
	for _, uuid := range []UUID{UUIDAuto, UUIDOff} {
		for _, twoFS := range []bool{false, true} {
			for _, m := range moves {
				t.Run(fmt.Sprint(m.name, uuid, twoFS), func(t *testing.T) {
					c := newFolders(t, "", moved)
					if twoFS {
						c.Lowers[0] = testkit.MountImage(t, "ext4", "")
						testkit.Build(t, c.Lowers[0], moved)
					}
					c.Features.UUID = uuid
					if m.redirects {
						c.Redirects = RedirectsOn
					}
					s := openSite(t, c)
					var before []uint64
					for _, p := range m.from {
						before = append(before, s.number(p))
					}
					s.do(m.send(s))
					for round := range 3 {
						for i, p := range m.to {
							if now := s.number(p); now != before[i] {
								t.Errorf("round %d: %s had the number %#x as %s, and has %#x", round, p, before[i], m.from[i], now)
							}
						}
						s.audit("numbers")
						s.distinct("numbers")
						s.remount()
					}
				})
			}
		}
	}
}

// distinct fails the test when two objects have one number.
func (s *site) distinct(what string) {
	s.t.Helper()
	by := map[uint64]uint64{}
	must(s.t, s.walkTree(1, "", func(p string, id uint64) error {
		a, err := s.getattr(id)
		if err != nil {
			return err
		}
		if other, ok := by[a.Ino]; ok && other != id && a.Nlink == 1 {
			s.t.Errorf("%s: %s has the number %#x of another object", what, p, a.Ino)
		}
		by[a.Ino] = id
		return nil
	}))
}

// Wherever a change is stopped, the object has its number, under the old or the new name.
func TestNumbersAfterEveryFault(t *testing.T) {
	for _, m := range moves {
		t.Run(m.name, func(t *testing.T) {
			for i := 0; ; i++ {
				c := newFolders(t, "", moved)
				if m.redirects {
					c.Redirects = RedirectsOn
				}
				s := openSite(t, c)
				before := s.number(m.from[0])
				send := m.send(s)
				run := &faultRun{t: t}
				fired, _ := run.fault(send, i, unix.EIO, i%2 == 0)
				s.remount()
				where := run.where(i, unix.EIO)
				if old, now := s.number(m.from[0]), s.number(m.to[0]); old != before && now != before {
					t.Errorf("%s: the number was %#x and is %#x or %#x", where, before, old, now)
				}
				s.distinct(where)
				s.shut()
				if !fired {
					return
				}
			}
		})
	}
}

// What cannot be the origin is none: the object has a number of its own, and nothing fails.
func TestNoOrigin(t *testing.T) {
	for what, spoil := range map[string]func(c *Config, up, low string){
		"gone":     func(_ *Config, _, low string) { must(t, os.Remove(low)) },
		"replaced": func(_ *Config, _, low string) { must(t, os.Remove(low)); must(t, os.WriteFile(low, nil, 0o644)) },
		"linked":   func(_ *Config, _, low string) { must(t, os.Link(low, low+"2")) },
		"nonsense": func(_ *Config, up, _ string) {
			must(t, unix.Setxattr(up, "trusted.overlay.origin", []byte("nonsense"), 0))
		},
		"empty":          func(_ *Config, up, _ string) { must(t, unix.Setxattr(up, "trusted.overlay.origin", nil, 0)) },
		"another kind":   func(_ *Config, up, _ string) { become(t, up) },
		"uuid=off":       func(c *Config, _, _ string) { c.Features.UUID = UUIDOff },
		"other lowers":   func(c *Config, _, _ string) { c.Lowers = []string{"/proc/sys"} },
		"not marked":     func(_ *Config, up, _ string) { must(t, unix.Removexattr(filepath.Dir(up), "trusted.overlay.impure")) },
		"unknown handle": func(_ *Config, up, _ string) { spoilHandle(t, up) },
	} {
		s := newSite(t, "", "file d/f \"text\"")
		before := s.number("d/f")
		s.do(s.write("d/f", 0, "x"))
		s.shut()
		up := filepath.Join(s.cfg.Upper, "d/f")
		spoil(&s.cfg, up, filepath.Join(s.cfg.Lowers[0], "d/f"))
		s.open()
		var st unix.Stat_t
		must(t, unix.Lstat(up, &st))
		if now := s.number("d/f"); now == before || now&0xffffffff != st.Ino&0xffffffff {
			t.Errorf("%s: the number is %#x; it was %#x, and is %#x in the upper", what, now, before, st.Ino)
		}
		s.distinct(what)
	}
}

// become makes a fifo of a file, with its attributes.
func become(t *testing.T, path string) {
	value := make([]byte, 256)
	n, err := unix.Lgetxattr(path, "trusted.overlay.origin", value)
	must(t, err)
	must(t, os.Remove(path))
	must(t, unix.Mkfifo(path, 0o644))
	must(t, unix.Lsetxattr(path, "trusted.overlay.origin", value[:n], 0))
}

// spoilHandle changes the bytes of a handle, not what is around them.
func spoilHandle(t *testing.T, path string) {
	value := make([]byte, 256)
	n, err := unix.Lgetxattr(path, "trusted.overlay.origin", value)
	must(t, err)
	for i := 21; i < n; i++ {
		value[i] ^= 0xff
	}
	must(t, unix.Lsetxattr(path, "trusted.overlay.origin", value[:n], 0))
}

// Two objects of an upper that call the same one their origin, as a file and its copy with all
// attributes, have two numbers.
func TestOneOriginOfTwo(t *testing.T) {
	s := newSite(t, "", "file d/f \"text\"")
	before := s.number("d/f")
	s.do(s.write("d/f", 0, "x"))
	s.shut()
	up := filepath.Join(s.cfg.Upper, "d/f")
	value := make([]byte, 256)
	n, err := unix.Lgetxattr(up, "trusted.overlay.origin", value)
	must(t, err)
	must(t, os.WriteFile(up+"2", nil, 0o644))
	must(t, unix.Lsetxattr(up+"2", "trusted.overlay.origin", value[:n], 0))
	s.open()
	if one, two := s.number("d/f"), s.number("d/f2"); one != before || two == before {
		t.Errorf("the numbers are %#x and %#x, of an origin with %#x", one, two, before)
	}
}

// A daemon that may not open by handles finds the origin of what still has its name, and of nothing
// else.
func TestNumbersWithoutTheRightToHandles(t *testing.T) {
	s := newSite(t, "", moved)
	first, second := s.number("d/f"), s.number("d/l")
	s.do(s.write("d/f", 0, "x"))
	s.do(s.chown("d/l", 1, 1))
	s.do(s.rename("d/l", "e/f", 0))
	s.shut()
	must(t, os.WriteFile(filepath.Join(s.cfg.Lowers[0], "e/f"), nil, 0o644))
	s.open()
	sys.SetFault(func(op sys.Op) error {
		if op.Call == "open_by_handle_at" {
			return unix.EPERM
		}
		return nil
	})
	defer sys.SetFault(nil)
	if now := s.number("d/f"); now != first {
		t.Errorf("the number was %#x and is %#x", first, now)
	}
	if now := s.number("e/f"); now == second {
		t.Error("a renamed object has been found")
	}
	s.distinct("without the right")
}

// Looking for origins costs in directories that have some, and nowhere else.
func TestOriginsCostInImpureDirectoriesAlone(t *testing.T) {
	s := newSite(t, "file pure/f\nfile d/new", "file d/f\nfile d/g")
	s.do(s.write("d/f", 0, "x"))
	s.remount()
	for p, cost := range map[string]string{
		"pure/f": "[fstatat]", "d/new": "[fstatat listxattr getxattr]", "d/g": "[fstatat]", "d/f": "[fstatat listxattr getxattr open_by_handle_at]",
	} {
		dir, err := s.walk(filepath.Dir(p))
		must(t, err)
		if _, err := s.list(dir, 4096); err != nil {
			t.Fatal(err)
		}
		s.remount()
		dir, err = s.walk(filepath.Dir(p))
		must(t, err)
		_, err = s.lookup(dir, "none") // so that the directory is opened
		want(t, "nothing", err, unix.ENOENT)
		made := fmt.Sprint(names(calls(func() { _, err = s.lookup(dir, filepath.Base(p)) })))
		must(t, err)
		if made != cost {
			t.Errorf("%s costs %s, want %s", p, made, cost)
		}
		if made := fmt.Sprint(names(calls(func() { _, err = s.lookup(dir, filepath.Base(p)) }))); made != "[fstatat]" {
			t.Errorf("%s again costs %s", p, made)
		}
	}
}

// These attributes are the overlay's own: a layer's are neither shown nor copied up, and an upper
// without attributes does without.
func TestOriginsAreNotShown(t *testing.T) {
	s := newSite(t, "", "file d/f \"text\"\nxattr d/f trusted.overlay.origin of-another\nxattr d trusted.overlay.impure y")
	s.do(s.write("d/f", 0, "x"))
	s.wantView("after a copy-up", "file d/f \"xext\"")
	value := make([]byte, 256)
	n, err := unix.Lgetxattr(filepath.Join(s.cfg.Upper, "d/f"), "trusted.overlay.origin", value)
	if must(t, err); string(value[:n]) == "of-another" {
		t.Error("the attribute was copied up")
	}
	bare := newSite(t, "", "file d/f \"text\"")
	sys.SetFault(func(op sys.Op) error {
		if op.Call == "setxattr" || op.Call == "name_to_handle_at" {
			return unix.EOPNOTSUPP
		}
		return nil
	})
	defer sys.SetFault(nil)
	bare.do(bare.write("d/f", 0, "x"))
	if made := calls(func() { bare.do(bare.chmod("d/f", 0o600)) }); len(made) == 0 {
		t.Error("nothing was done")
	}
}
