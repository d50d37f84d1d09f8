package stack

import (
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/sys"
	"github.com/fuse-overlay/fuse-overlay/internal/testkit"
)

// scenario is one change of the upper.
type scenario struct {
	name         string
	upper, lower string
	format       func(*site)
	// dirs are the directories that will change. look looks the names up in them, and returns the
	// change.
	dirs []string
	look func(s *site, dirs []*merged) func() error
}

// faulty makes call i fail with errno while f runs, and with kill every later call, too. fired
// reports whether f made that many calls.
func faulty(i int, errno unix.Errno, kill bool, f func()) (fired bool) {
	n := 0
	sys.SetFault(func(sys.Op) error {
		n++
		if n-1 == i || kill && n-1 > i {
			return errno
		}
		return nil
	})
	defer sys.SetFault(nil)
	f()
	return n > i
}

// everyFault fails each system call of a change once, and stops at each. Afterwards the folders
// show the state before or the state after the change. The directories in use agree with them, and
// another try succeeds, in the same stack and after a remount.
func (c *scenario) everyFault(t *testing.T) {
	s := c.open(t)
	before := s.view()
	if err := c.look(s, c.opened(s))(); err != nil {
		t.Fatalf("%s: %v", c.name, err)
	}
	after := s.view()
	for _, kill := range []bool{false, true} {
		for i := 0; c.faultAt(t, i, kill, before, after); i++ {
		}
	}
}

func (c *scenario) open(t *testing.T) *site {
	t.Helper()
	s := newSite(t, c.upper, c.lower)
	c.format(s)
	return s
}

func (c *scenario) opened(s *site) []*merged {
	var dirs []*merged
	for _, path := range c.dirs {
		dirs = append(dirs, s.dir(path))
	}
	return dirs
}

func (c *scenario) faultAt(t *testing.T, i int, kill bool, before, after string) (fired bool) {
	t.Helper()
	s := c.open(t)
	dirs := c.opened(s)
	change := c.look(s, dirs)
	var err error
	fired = faulty(i, unix.ENOSPC, kill, func() { err = change() })
	if err != nil && err != unix.ENOSPC {
		t.Errorf("%s, call %d: %v", c.name, i, err)
	}
	if kill {
		s.remount()
		s.wantEmptyWork()
		dirs = c.opened(s)
	}
	for try := range 2 {
		for _, d := range dirs {
			d.wantExact(c.name)
		}
		now := s.view()
		if now == after {
			break
		}
		if now != before || err == nil || try > 0 {
			t.Errorf("%s, call %d, stop %v, error %v: the view is neither that before nor that after; after it:\n%s",
				c.name, i, kill, err, testkit.Diff(after, now))
			break
		}
		if err = c.look(s, dirs)(); err != nil {
			t.Errorf("%s, call %d, stop %v, second try: %v", c.name, i, kill, err)
			break
		}
	}
	s.remount()
	s.wantEmptyWork()
	if now := s.view(); now != after {
		t.Errorf("%s, call %d, stop %v: after a remount:\n%s", c.name, i, kill, testkit.Diff(after, now))
	}
	s.shut()
	return fired
}

// faultFormats are the formats whose changes differ. All other formats combine these.
var faultFormats = []string{"devices", "no RENAME_WHITEOUT", "markers, no xattrs", "xattr whiteouts", "long names, xattrs", "long names, devices"}

func TestEveryFaultOfCreate(t *testing.T) {
	for _, format := range faultFormats {
		for _, name := range []string{"file", "dir", "nothing", "new"} {
			for _, marker := range []bool{false, true} {
				for _, mode := range []uint32{unix.S_IFREG | 0o640, unix.S_IFDIR | 0o750, unix.S_IFLNK | 0o777} {
					c := scenario{
						name:   format + "/" + name,
						upper:  white("file", marker) + white("dir", marker) + white("nothing", marker),
						lower:  "file file\ndir dir\nfile dir/old",
						format: formats[format],
						dirs:   []string{""},
						look: func(s *site, dirs []*merged) func() error {
							f, up := dirs[0].lookup(name), dirs[0].upper()
							return func() error {
								file, err := s.Create(&dirs[0].Dir, up, name, &f, &Object{Mode: mode, Target: "x", UID: 5})
								if file != nil {
									file.Close()
								}
								return err
							}
						},
					}
					c.everyFault(t)
				}
			}
		}
	}
}

func TestEveryFaultOfLink(t *testing.T) {
	for _, format := range faultFormats {
		for _, name := range []string{"file", "dir", "new"} {
			c := scenario{
				name: format + "/" + name, upper: "file src\nwhite file\nfile .wh.dir", lower: "file file\ndir dir", format: formats[format],
				dirs: []string{""},
				look: func(s *site, dirs []*merged) func() error {
					f, up := dirs[0].lookup(name), dirs[0].upper()
					return func() error { return s.Link(&dirs[0].Dir, up, name, &f, up.At("src"), unix.S_IFREG) }
				},
			}
			c.everyFault(t)
		}
	}
}

func TestEveryFaultOfRemove(t *testing.T) {
	for _, format := range faultFormats {
		for name, r := range removables {
			c := scenario{
				name: format + "/" + name, upper: r.upper, lower: r.lower, format: formats[format],
				dirs: []string{""},
				look: func(s *site, dirs []*merged) func() error {
					f, up := dirs[0].lookup("x"), dirs[0].upper()
					return func() error {
						if f.IsDir() {
							return s.RemoveDir(&dirs[0].Dir, up, "x", &f)
						}
						return s.Remove(&dirs[0].Dir, up, "x", &f)
					}
				},
			}
			c.everyFault(t)
		}
	}
}

func TestEveryFaultOfRename(t *testing.T) {
	for _, format := range faultFormats {
		for _, what := range []string{"file over a file", "opaque directory"} {
			from := movables[what]
			for where, to := range targets {
				if from.isDir && !to.dir || !from.isDir && !to.file {
					continue
				}
				if from.lower != "" && to.replaces && slices.Contains([]string{"no RENAME_WHITEOUT", "xattr whiteouts", "long names, xattrs"}, format) {
					continue // a file is replaced in two steps, a directory not at all: see move
				}
				c := scenario{
					name:  format + "/" + what + " to " + where,
					upper: "dir p\ndir q\n" + fill(from.upper, "p/from") + fill(to.upper, "q/to"),
					lower: "dir p\ndir q\n" + fill(from.lower, "p/from") + fill(to.lower, "q/to"), format: formats[format],
					dirs: []string{"p", "q"},
					look: func(s *site, dirs []*merged) func() error {
						from, to := dirs[0].end("from"), dirs[1].end("to")
						return func() error { return s.Rename(from, to) }
					},
				}
				c.everyFault(t)
			}
		}
	}
}

func TestEveryFaultOfExchange(t *testing.T) {
	for _, format := range faultFormats {
		for _, first := range []string{"file", "opaque directory"} {
			for _, second := range []string{"file over a file", "directory", "opaque directory"} {
				a, b := movables[first], movables[second]
				c := scenario{
					name:  format + "/" + first + " and " + second,
					upper: "dir p\ndir q\n" + fill(a.upper, "p/a") + fill(strings.ReplaceAll(b.upper, "in", "other"), "q/b"),
					lower: "dir p\ndir q\n" + fill(a.lower, "p/a") + fill(b.lower, "q/b"), format: formats[format],
					dirs: []string{"p", "q"},
					look: func(s *site, dirs []*merged) func() error {
						a, b := dirs[0].end("a"), dirs[1].end("b")
						return func() error { return s.Exchange(a, b) }
					},
				}
				c.everyFault(t)
			}
		}
	}
}
