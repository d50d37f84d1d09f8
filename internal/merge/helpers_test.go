package merge

import (
	"fmt"
	iofs "io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/fs"
	"github.com/fuse-overlay/fuse-overlay/internal/changes"
	"github.com/fuse-overlay/fuse-overlay/internal/owner"
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
	features    fs.Features
	permissions int // of option xattr_permissions
	dataOnly    []string
}

func newSite(t *testing.T, upper string, lowers ...string) *site {
	t.Helper()
	s := &site{t, testkit.NewLayers(t, upper, lowers...), fs.Features{MetaCopy: true}, 0, nil}
	must(t, os.Mkdir(s.Work, 0o700))
	must(t, filepath.WalkDir(filepath.Dir(s.Upper), func(p string, _ iofs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		old := []unix.Timespec{{Sec: 1000, Nsec: 5}, {Sec: 1000, Nsec: 7}}
		return unix.UtimesNanoAt(unix.AT_FDCWD, p, old, unix.AT_SYMLINK_NOFOLLOW)
	}))
	return s
}

func (s *site) config() fs.Config {
	return fs.Config{
		Upper: s.Upper, Work: s.Work, Lowers: s.Lowers, DataOnly: s.dataOnly, Log: zap.NewNop(), Redirects: fs.RedirectsFollow, Features: s.features,
		Permissions: owner.Permissions(s.permissions),
	}
}

// lines collects the lines of changes.
func (s *site) plan(m *Merge) (string, error) {
	var b strings.Builder
	err := m.Plan(&changes.Lines{W: &b})
	return b.String(), err
}

// open opens the layers for a merge.
func (s *site) open() (m *Merge, err error) {
	systest.WithoutClones(func() { m, err = Open(s.config()) })
	return m, err
}

// merge merges, or completes a merge.
func (s *site) merge() error {
	m, err := s.open()
	if err != nil {
		return err
	}
	defer m.Close()
	if !m.Begun() {
		if _, err := s.plan(m); err != nil {
			return err
		}
	}
	return m.Run()
}

// shown returns the tree that a mount of the layers shows, one object a line. Inode numbers and
// link counts are left out: each name of a file is followed by the first one.
func (s *site) shown() string {
	s.t.Helper()
	var lines []string
	cfg := s.config()
	cfg.ReadOnly = true
	systest.WithoutClones(func() {
		v, err := view.Open(cfg)
		must(s.t, err)
		defer v.Close()
		root, err := v.Root()
		must(s.t, err)
		links := map[uint64]string{}
		lines = append([]string{s.line(root, ".", links)}, s.show(root, "", links)...)
	})
	return strings.Join(lines, "\n")
}

// wantShown fails the test if the site does not show this tree; what describes the difference.
func (s *site) wantShown(what, tree string) {
	s.t.Helper()
	if diff := testkit.Diff(tree, s.shown()); diff != "" {
		s.t.Errorf("%s:\n%s", what, diff)
	}
}

func (s *site) show(d *view.Node, at string, links map[uint64]string) (lines []string) {
	s.t.Helper()
	names, err := d.Names()
	must(s.t, err)
	for _, name := range names {
		n, err := d.Lookup(name)
		must(s.t, err)
		if n == nil {
			s.t.Fatalf("%s is listed and not found", path.Join(at, name))
		}
		lines = append(lines, s.line(n, path.Join(at, name), links))
		if n.IsDir() {
			lines = append(lines, s.show(n, path.Join(at, name), links)...)
		}
		n.Forget()
	}
	return lines
}

func (s *site) line(n *view.Node, at string, links map[uint64]string) string {
	s.t.Helper()
	flags, err := n.InodeFlags()
	must(s.t, err)
	xattrs, err := n.Xattrs()
	must(s.t, err)
	line := fmt.Sprintf("%s %o %d %d %d %v %x %v", at, n.Mode, n.UID, n.GID, n.Rdev, n.Mtime, flags, xattrs)
	switch n.Type() {
	case unix.S_IFREG:
		data := make([]byte, n.Size)
		_, err := n.ReadAt(data, 0)
		must(s.t, err)
		line += fmt.Sprintf(" %q", data)
	case unix.S_IFLNK:
		target, err := n.Readlink()
		must(s.t, err)
		line += " " + target
	}
	if !n.IsDir() && n.Nlink > 1 {
		if first := links[n.Ino]; first != "" {
			line += " is " + first
		} else {
			links[n.Ino] = at
		}
	}
	return line
}

const (
	trusted  = "trusted.overlay."
	metacopy = trusted + "metacopy "
	redirect = trusted + "redirect "
)

// cases have one case for each kind of change, and for each form in which an upper has it. plain is
// what the lower is afterwards, if it is the only one; empty: it is not compared.
var cases = []struct {
	name, upper string
	lowers      []string
	plain       string
}{
	{"nothing", "", []string{"file a\ndir d"}, "file a\ndir d"},
	{"added", "file a \"1\"\nfile d/in\nsymlink d/l x\nfifo p 0600\nsock s\nchar c 1/3 0620\nown d/in 3 4\nxattr a user.x 1\ndir e 1700",
		[]string{"file b"}, "file a \"1\"\nfile b\nfile d/in\nsymlink d/l x\nfifo p 0600\nsock s\nchar c 1/3 0620\nown d/in 3 4\nxattr a user.x 1\ndir e 1700"},
	{"changed", "file a \"new\"\nfile m 0600\nfile o\nown o 1 2\nfile x\nxattr x user.x 2\ndir d 0700\nxattr d user.d 1",
		[]string{"file a \"old\"\nfile m\nfile o\nfile x\nxattr x user.y 1\nfile d/in\nxattr d user.e 1"},
		"file a \"new\"\nfile m 0600\nfile o\nown o 1 2\nfile x\nxattr x user.x 2\ndir d 0700\nxattr d user.d 1\nfile d/in"},
	{"equal copies", "file a \"1\"\nfile d/b\nxattr a " + trusted + "origin x\nxattr d " + trusted + "impure y", []string{"file a \"1\"\nfile d/b"}, "file a \"1\"\nfile d/b"},
	{"private xattrs", "file a \"1\"\nxattr a " + trusted + "origin x\nxattr a user.overlay.origin y\ndir d\nxattr d " + trusted + "impure y\nfile d/a\nxattr . " + trusted + "impure y",
		[]string{""}, "file a \"1\"\nfile d/a"},
	{"escaped xattrs", "file a\nxattr a trusted.overlay.overlay.x 1\ndir d\nxattr d trusted.overlay.overlay.opaque y", []string{"file d/f"},
		"file a\nxattr a trusted.overlay.overlay.x 1\nfile d/f\nxattr d trusted.overlay.overlay.opaque y"},
	{"deleted", "white f\nwhite d\nwhite none\nfile .wh.g\nfile e/.wh.h", []string{"file f\nfile d/in\nfile d/sub/in 0000\nfile g\nfile e/h\nfile e/i"}, "file e/i"},
	{"deleted by xattrs", "file f\nxattr f " + trusted + "whiteout \"\"\nxattr . " + trusted + "opaque x", []string{"file f\nfile g"}, "file g"},
	{"another type", "file d \"1\"\ndir f\nfile f/in\nsymlink p x\nfifo l", []string{"file d/in/deep\nfile f\nfifo p\nsymlink l y"},
		"file d \"1\"\nfile f/in\nsymlink p x\nfifo l"},
	{"opaque", "opaque d\nfile d/a \"1\"\nfile d/new\ndir d/sub\nfile d/same\nopaque d/s2\nfile d/s2/x", []string{"file d/a \"2\"\nfile d/b\nfile d/sub/x\nfile d/same\ndir d/z\nfile d/s2/y\nfile e"},
		"file d/a \"1\"\nfile d/new\ndir d/sub\nfile d/same\nfile d/s2/x\nfile e"},
	{"opaque root", "file .wh..wh..opq\nfile new\nfile d/same", []string{"file old\nfile d/same\nfile d/gone"}, "file new\nfile d/same"},
	{"opaque root by xattr", "xattr . " + trusted + "opaque y\nfile new", []string{"file old"}, "file new"},
	{"beside markers", "dir d\nfile .wh.d\nfile f \"1\"\nfile .wh.f", []string{"file d/old\nfile f \"2\""}, "dir d\nfile f \"1\""},
	{"renamed", "dir new 0711\nxattr new " + redirect + "/old\nwhite old\nfile new/a \"1\"\nfile new/more\nwhite new/gone\nfile new/sub/x",
		[]string{"file old/a \"2\"\nfile old/b\nfile old/gone\nfile old/sub/y"},
		"dir new 0711\nfile new/a \"1\"\nfile new/b\nfile new/more\nfile new/sub/x\nfile new/sub/y"},
	{"renamed in renamed", "dir b\nxattr b " + redirect + "/a\nwhite a\ndir b/y\nxattr b/y " + redirect + "x\nwhite b/x\nfile b/y/new",
		[]string{"file a/x/f\nfile a/z"}, "file b/y/f\nfile b/y/new\nfile b/z"},
	{"renamed out of renamed", "dir b\nxattr b " + redirect + "/a\nwhite a\ndir c/y\nxattr c/y " + redirect + "/a/x\nwhite b/x",
		[]string{"file a/x/f\nfile a/z"}, "file c/y/f\nfile b/z"},
	{"renamed over another", "dir new\nxattr new " + redirect + "/old\nwhite old", []string{"file old/a\nfile new/b"}, "file new/a"},
	{"exchanged", "dir a\nxattr a " + redirect + "/b\ndir b\nxattr b " + redirect + "/a", []string{"file a/1\nfile b/2"}, "file a/2\nfile b/1"},
	{"renamed into the other", "dir b/in\nxattr b/in " + redirect + "/a\nwhite a", []string{"file a/1\nfile b/2"}, "file b/2\nfile b/in/1"},
	{"renamed, and a new one", "dir b\nxattr b " + redirect + "/a\nopaque a\nfile a/3", []string{"file a/1"}, "file b/1\nfile a/3"},
	{"redirect to nothing", "dir new\nxattr new " + redirect + "/none\nfile new/a", []string{"file new/b"}, "file new/a"},
	{"metacopies", "file f 0600\nsize f 3\nxattr f " + metacopy + "\"\"\nfile g\nsize g 3\nxattr g " + metacopy + "\"\"\nown g 5 5\nxattr g user.x 1",
		[]string{"file f \"abc\"\nfile g \"def\"\nxattr g user.y 1"}, "file f 0600 \"abc\"\nfile g \"def\"\nown g 5 5\nxattr g user.x 1"},
	{"a metacopy of a linked file", "file f 0600\nsize f 3\nxattr f " + metacopy + "\"\"", []string{"file f \"abc\"\nlink h f"}, "file f 0600 \"abc\"\nfile h \"abc\""},
	{"a cut metacopy", "file f\nsize f 2\nxattr f " + metacopy + "\"\"", []string{"file f \"abc\""}, "file f \"ab\""},
	{"renamed metacopy", "file new 0600\nsize new 3\nxattr new " + metacopy + "\"\"\nxattr new " + redirect + "/d/old\nwhite d/old",
		[]string{"file d/old \"abc\"\nfile d/x"}, "file new 0600 \"abc\"\nfile d/x"},
	{"renamed metacopy, and a new file", "file new\nsize new 3\nxattr new " + metacopy + "\"\"\nxattr new " + redirect + "/old\nfile old \"x\"",
		[]string{"file old \"abc\""}, "file new \"abc\"\nfile old \"x\""},
	{"copied metacopy", "file new 0600\nsize new 3\nxattr new " + metacopy + "\"\"\nxattr new " + redirect + "/old", []string{"file old \"abc\""},
		"file new 0600 \"abc\"\nfile old \"abc\""},
	{"metacopy from a renamed directory", "dir e\nxattr e " + redirect + "/d\nwhite d\nfile n\nsize n 3\nxattr n " + metacopy + "\"\"\nxattr n " + redirect + "/d/f\nwhite e/f",
		[]string{"file d/f \"abc\"\nfile d/g"}, "file n \"abc\"\nfile e/g"},
	{"linked metacopy", "file f 0600\nsize f 3\nxattr f " + metacopy + "\"\"\nxattr f " + redirect + "/f\nlink g f", []string{"file f \"abc\""},
		"file f 0600 \"abc\"\nlink g f"},
	{"links", "file b \"1\"\nlink a b\nlink d/c b", []string{"file x"}, "file a \"1\"\nlink b a\nlink d/c a\nfile x"},
	{"links of an unchanged file", "file a\nlink b a", []string{"file a"}, "file a\nlink b a"},
	{"a broken link", "file a \"1\"", []string{"file a \"0\"\nlink b a"}, "file a \"1\"\nfile b \"0\""},
	{"links as in the lower", "file a \"1\"\nlink b a\nlink c a", []string{"file a \"2\"\nlink b a"}, "file a \"1\"\nlink b a\nlink c a"},
	{"root", "xattr . user.x 1\nown . 7 8", []string{"file a"}, "file a"},
	{"sparse", "file f\nsize f 1000000", []string{"file g"}, "file g\nfile f\nsize f 1000000"},

	{"two lowers", "white a\nwhite d\nfile e/new\nwhite e/x\nfile f \"1\"\nfile n", []string{"file a\nfile e/y\nfile f/in", "file a\nfile d/in\nfile e/x\nfile f/other"}, ""},
	{"in further lowers only", "file d/e/a \"1\"\nwhite d/e/b\nfile g 0600\nsize g 3\nxattr g " + metacopy + "\"\"", []string{"file x", "file d/e/a\nfile d/e/b\nfile d/e/c\nfile g \"abc\""}, ""},
	{"opaque over two", "opaque d\nfile d/n\nfile d/same", []string{"file d/a\nfile x", "file d/b\nfile d/same\nfile d/c/d"}, ""},
	{"a directory over a hidden one", "dir d\nfile d/n\ndir w", []string{"file d\nwhite w", "file d/b\nfile w/b"}, ""},
	{"renamed over two", "dir n\nxattr n " + redirect + "/o\nwhite o\nfile n/new", []string{"file o/a\nfile x", "file o/b\nfile n/hidden"}, ""},
	{"renamed in further lowers only", "dir n\nxattr n " + redirect + "/o\nwhite o\nwhite n/a", []string{"file x", "file o/a\nfile o/b"}, ""},
	{"a further rename", "dir n\nxattr n " + redirect + "/m\nwhite m\nwhite n/a", []string{"dir m\nxattr m " + redirect + "/o\nwhite o\nfile m/c", "file o/a\nfile o/b\nfile m/no"}, ""},
	{"below marks", "file d/n\nwhite d/a\nwhite e", []string{"opaque d\nfile d/a\nfile .wh.e\nfile e/f", "file d/a\nfile d/b\nfile e/g"}, ""},
}
