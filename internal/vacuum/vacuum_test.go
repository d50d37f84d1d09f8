package vacuum

import (
	"errors"
	"fmt"
	iofs "io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/fs"
	"github.com/fuse-overlay/fuse-overlay/internal/ondisk"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
	"github.com/fuse-overlay/fuse-overlay/internal/testkit"
	"github.com/fuse-overlay/fuse-overlay/internal/testkit/systest"
	"github.com/fuse-overlay/fuse-overlay/internal/view"
)

func TestMain(m *testing.M) { testkit.MainInMemory(m) }

var must = testkit.Must

// site is the folders of an overlay. All objects have one time of modification.
type site struct {
	t *testing.T
	testkit.Layers
}

func newSite(t *testing.T, upper string, lowers ...string) *site {
	t.Helper()
	s := &site{t, testkit.NewLayers(t, upper, lowers...)}
	must(t, os.Mkdir(s.Work, 0o700))
	must(t, filepath.WalkDir(filepath.Dir(s.Upper), func(p string, _ iofs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		old := []unix.Timespec{{Sec: 1000}, {Sec: 1000}}
		return unix.UtimesNanoAt(unix.AT_FDCWD, p, old, unix.AT_SYMLINK_NOFOLLOW)
	}))
	return s
}

func (s *site) config() fs.Config {
	return fs.Config{
		Upper: s.Upper, Lowers: s.Lowers, Log: zap.NewNop(), Redirects: fs.RedirectsFollow, Features: fs.Features{MetaCopy: true},
	}
}

func (s *site) open() *Vacuum {
	s.t.Helper()
	var v *Vacuum
	var err error
	systest.WithoutClones(func() { v, err = Open(s.config(), s.Work) })
	must(s.t, err)
	return v
}

// found returns drops, one a line.
func found(drops []Drop) string {
	var lines []string
	for _, d := range drops {
		lines = append(lines, string(d.Kind)+" "+d.Path)
	}
	return strings.Join(lines, "\n")
}

// shown returns the tree that a mount of the site shows, one object a line. Inode numbers are left
// out: no object here has an origin. dirTimes: with the times of directories.
func shown(s *site, dirTimes bool) string {
	s.t.Helper()
	var lines []string
	systest.WithoutClones(func() {
		v, err := view.Open(s.config())
		must(s.t, err)
		defer v.Close()
		root, err := v.Root()
		must(s.t, err)
		lines = s.show(root, "", dirTimes)
	})
	return strings.Join(lines, "\n")
}

func (s *site) show(d *view.Node, at string, dirTimes bool) (lines []string) {
	s.t.Helper()
	names, err := d.Names()
	must(s.t, err)
	for _, name := range names {
		n, err := d.Lookup(name)
		must(s.t, err)
		if n == nil {
			s.t.Fatalf("%s is listed and not found", path.Join(at, name))
		}
		line := fmt.Sprintf("%s %o %d %d %d %d", path.Join(at, name), n.Mode, n.UID, n.GID, n.Nlink, n.Rdev)
		if !n.IsDir() || dirTimes {
			line += fmt.Sprint(n.Mtime)
		}
		xattrs, err := n.Xattrs()
		must(s.t, err)
		line += fmt.Sprint(xattrs)
		switch n.Type() {
		case unix.S_IFREG:
			data := make([]byte, n.Size)
			_, err := n.ReadAt(data, 0)
			must(s.t, err)
			line += fmt.Sprintf(" %q", data)
		case unix.S_IFLNK:
			target, err := n.Readlink()
			must(s.t, err)
			line += target
		}
		lines = append(lines, line)
		if n.IsDir() {
			lines = append(lines, s.show(n, path.Join(at, name), dirTimes)...)
		}
		n.Forget()
	}
	return lines
}

const (
	trusted  = "trusted.overlay."
	metacopy = trusted + "metacopy "
	redirect = trusted + "redirect "
)

// cases have uppers with something that can be dropped, and something beside it that cannot.
var cases = []struct {
	name, upper string
	lowers      []string
	want        string
	left        string // of the upper
}{
	{"copies", "file a \"1\"\nfile b \"2\"\nsymlink l x\nsymlink m x\nfifo p\nchar c 1/3\nchar d 1/3",
		[]string{"file a \"1\"\nfile b \"x\"\nsymlink l x\nsymlink m y\nfifo p\nchar c 1/3\nchar d 1/5"},
		"copy a\ncopy c\ncopy l\ncopy p", "file b \"2\"\nsymlink m x\nchar d 1/3"},
	{"attributes", "file a 0600\nfile b\nown b 1 0\nfile c\nxattr c user.x 1\nfile d\nxattr d user.x 1\nfile e",
		[]string{"file a\nfile b\nfile c\nxattr c user.x 1\nfile d\nfile e\nxattr e user.x 1"},
		"copy c", "file a 0600\nfile b\nown b 1 0\nfile d\nxattr d user.x 1\nfile e"},
	{"whiteouts", "white a\nwhite none\nwhite d/none\nfile d/.wh.none2\nfile d/.wh.b\nfile e/.wh..wh..opq\nwhite e/x", []string{"file a\nfile d/b\nfile e/x"},
		"whiteout d/.wh.none2\nwhiteout d/none\nwhiteout e/x\nwhiteout none", "white a\nfile d/.wh.b\nfile e/.wh..wh..opq"},
	{"whiteouts by xattrs", "dir d\nxattr d " + trusted + "opaque x\nfile d/none\nxattr d/none " + trusted + "whiteout y", []string{"file d/a"},
		"whiteout d/none\ndirectory d", ""},
	{"directories", "dir same\ndir sub/sub/sub\ndir mode 0700\ndir new\ndir opaque\nxattr opaque " + trusted + "opaque y\ndir marked\nfile .wh.marked\nfile full/f \"1\"",
		[]string{"file same/a\nfile sub/sub/sub/f\nfile mode/f\nfile opaque/f\nfile marked/f\nfile full/f"},
		"directory same\ndirectory sub/sub/sub\ndirectory sub/sub\ndirectory sub",
		"dir mode 0700\ndir new\ndir opaque\nxattr opaque " + trusted + "opaque y\ndir marked\nfile .wh.marked\nfile full/f \"1\""},
	{"with all in them", "file d/e/a \"1\"\nwhite d/e/none\nsymlink d/l x", []string{"file d/e/a \"1\"\nsymlink d/l x", "file d/e/b"},
		"copy d/e/a\nwhiteout d/e/none\ndirectory d/e\ncopy d/l\ndirectory d", ""},
	{"metacopies", "file f\nsize f 3\nxattr f " + metacopy + "\"\"\nfile g 0600\nsize g 3\nxattr g " + metacopy + "\"\"",
		[]string{"file f \"abc\"\nfile g \"abc\""}, "copy f", "file g 0600\nsize g 3\nxattr g " + metacopy + "\"\""},
	{"redirects", "dir new\nxattr new " + redirect + "/old\nfile new/a \"1\"\nfile new/b \"2\"\nwhite new/none\nwhite old\ndir r\nxattr r " + redirect + "q\nfile r/a \"1\"",
		[]string{"file old/a \"1\"\nfile old/b\nfile new/b \"2\"\nfile q/a \"1\""},
		"copy new/a\nwhiteout new/none\ncopy r/a",
		"dir new\nxattr new " + redirect + "/old\nfile new/b \"2\"\nwhite old\ndir r\nxattr r " + redirect + "q"},
	{"hard links", "file a\nlink b a\nfile c\nfile d", []string{"file a\nfile b\nfile c\nlink c2 c\nfile d"},
		"copy d", "file a\nlink b a\nfile c"},
	{"over a lower's whiteout", "white a\nfile b", []string{"white a\nwhite b", "file a\nfile b"}, "whiteout a", "file b"},
	{"another type", "file d\ndir f", []string{"file d/a\nfile f"}, "", "file d\ndir f"},
}

// Exactly what adds nothing is dropped, and the merged tree stays the same. A second run finds
// nothing.
func TestDrops(t *testing.T) {
	for _, tt := range cases {
		t.Run(tt.name, func(t *testing.T) {
			s := newSite(t, tt.upper, tt.lowers...)
			before := shown(s, true)
			v := s.open()
			defer v.Close()
			drops, err := v.Find()
			must(t, err)
			if got := found(drops); got != tt.want {
				t.Errorf("found:\n%s\nwant:\n%s", got, tt.want)
			}
			for i := range drops {
				must(t, v.Drop(&drops[i]))
			}
			must(t, v.Sync())
			testkit.Want(t, "the upper", s.Upper, tt.left)
			if diff := testkit.Diff(before, shown(s, true)); diff != "" {
				t.Errorf("the view has changed:\n%s", diff)
			}
			again, err := v.Find()
			must(t, err)
			if len(again) > 0 {
				t.Errorf("a second run finds:\n%s", found(again))
			}
		})
	}
}

// At each system call the process may end, and the view is that of before. The next run completes
// the work.
func TestEndAtEachCall(t *testing.T) {
	for _, tt := range cases {
		t.Run(tt.name, func(t *testing.T) {
			for failing := 0; ; failing++ {
				s := newSite(t, tt.upper, tt.lowers...)
				before := shown(s, false)
				v := s.open()
				drops, err := v.Find()
				must(t, err)
				n := -1
				systest.While(func(sys.Op) bool { n++; return n >= failing }, unix.EIO, func() {
					for i := range drops {
						if err = v.Drop(&drops[i]); err != nil {
							return
						}
					}
				})
				if diff := testkit.Diff(before, shown(s, false)); diff != "" {
					t.Errorf("after an end at call %d the view is another:\n%s", failing, diff)
				}
				v.Close()
				if err == nil {
					return
				}
				if !errors.Is(err, unix.EIO) {
					t.Fatal(err)
				}
			}
		})
	}
}

// A failing call while the upper is read is an error, and nothing is dropped then.
func TestFaultsOfFind(t *testing.T) {
	before := testkit.OpenFDs(t)
	for _, tt := range cases {
		s := newSite(t, tt.upper, tt.lowers...)
		v := s.open()
		calls := len(systest.Calls(func() { _, err := v.Find(); must(t, err) }))
		for i := range calls {
			n := -1
			var drops []Drop
			var err error
			systest.While(func(sys.Op) bool { n++; return n == i }, unix.EIO, func() { drops, err = v.Find() })
			for _, line := range strings.Split(found(drops), "\n") {
				if line != "" && !slices.Contains(strings.Split(tt.want, "\n"), line) {
					t.Errorf("%s, call %d (%v): finds %s", tt.name, i, err, line)
				}
			}
		}
		v.Close()
	}
	if after := testkit.OpenFDs(t); after != before {
		t.Errorf("%d descriptors are open, %d were", after, before)
	}
}

// Flags that chattr sets are a difference, and so is what protattr keeps.
func TestFlags(t *testing.T) {
	s := newSite(t, "file a\nfile b\nxattr b "+trusted+"protattr i\nfile c", "file a\nfile b\nfile c")
	testkit.Run(t, "chattr", "+d", filepath.Join(s.Upper, "a"))
	v := s.open()
	defer v.Close()
	drops, err := v.Find()
	must(t, err)
	if got := found(drops); got != "copy c" {
		t.Errorf("found:\n%s", got)
	}
}

// An object that has taken the place of another is not dropped.
func TestAnotherObject(t *testing.T) {
	s := newSite(t, "file a", "file a")
	v := s.open()
	defer v.Close()
	drops, err := v.Find()
	must(t, err)
	testkit.Build(t, s.Upper, "file new \"data\"")
	must(t, os.Rename(filepath.Join(s.Upper, "new"), filepath.Join(s.Upper, "a")))
	if err := v.Drop(&drops[0]); !errors.Is(err, unix.ESTALE) {
		t.Errorf("drop: %v", err)
	}
}

// A mount that holds the upper, and lowers that the upper does not belong to, are refused.
func TestRefused(t *testing.T) {
	s := newSite(t, "", "", "")
	v := s.open()
	if _, err := Open(s.config(), s.Work); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("a second vacuum: %v", err)
	}
	v.Close()
	root, _, err := sys.OpenLower(s.Lowers[1])
	must(t, err)
	defer root.Close()
	h, err := root.Ref().Handle()
	must(t, err)
	uuid, err := root.FSUUID()
	must(t, err)
	must(t, unix.Setxattr(s.Upper, trusted+"origin", ondisk.Handle{Handle: h, UUID: uuid}.Encode(), 0))
	if _, err := OpenToRead(s.config()); !errors.Is(err, errOtherLower) {
		t.Errorf("with another first lower: %v", err)
	}
}
