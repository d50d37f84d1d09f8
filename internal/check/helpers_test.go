package check

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	overlay "github.com/fuse-overlay/fuse-overlay/fs"
	"github.com/fuse-overlay/fuse-overlay/internal/ondisk"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
	"github.com/fuse-overlay/fuse-overlay/internal/testkit"
	"github.com/fuse-overlay/fuse-overlay/internal/testkit/systest"
)

func TestMain(m *testing.M) { testkit.MainInMemory(m) }

var must = testkit.Must

// site is the folders of an overlay.
type site struct {
	t *testing.T
	testkit.Layers
	names ondisk.Names
}

// newSite makes the folders that tables describe, and an empty work directory.
func newSite(t *testing.T, upper string, lowers ...string) *site {
	t.Helper()
	s := &site{t: t, Layers: testkit.NewLayers(t, upper, lowers...)}
	must(t, os.Mkdir(s.Work, 0o700))
	return s
}

func (s *site) config() Config {
	return Config{Work: s.Work, Notes: true, Layers: overlay.Config{
		Upper: s.Upper, Lowers: s.Lowers, Log: zap.NewNop(), Redirects: overlay.RedirectsFollow,
		Features: overlay.Features{MetaCopy: true, Names: s.names},
	}}
}

// open opens a checker of the site, which is closed with the test.
func (s *site) open() *Checker {
	s.t.Helper()
	var c *Checker
	var err error
	systest.WithoutClones(func() { c, err = Open(s.config()) })
	must(s.t, err)
	s.t.Cleanup(c.Close)
	return c
}

// findings checks the site.
func (s *site) findings() []Finding {
	s.t.Helper()
	var found []Finding
	var err error
	c := s.open()
	systest.WithoutClones(func() { found, err = c.Run() })
	must(s.t, err)
	return found
}

// places returns findings without their meaning, one a line.
func places(found []Finding) string {
	var lines []string
	for _, f := range found {
		lines = append(lines, string(f.Kind)+"|"+f.Layer+":"+f.Path)
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// path returns the path of an object, such as "upper/a", "lower1/b" or "work/work".
func (s *site) path(p string) string { return filepath.Join(filepath.Dir(s.Upper), p) }

// handle returns the handle of an object, as a copy of it has it.
func (s *site) handle(p string) ondisk.Handle {
	s.t.Helper()
	dir, _, err := sys.OpenLower(filepath.Dir(s.path(p)))
	must(s.t, err)
	defer dir.Close()
	h := ondisk.Handle{}
	h.Handle, err = dir.At(filepath.Base(p)).Handle()
	must(s.t, err)
	h.UUID, err = dir.FSUUID()
	must(s.t, err)
	return h
}

// xattr sets an xattr.
func (s *site) xattr(p, name string, value []byte) {
	s.t.Helper()
	must(s.t, unix.Lsetxattr(s.path(p), name, value, 0))
}

const trusted = "trusted.overlay."

// copyOf gives an object of the upper the origin of a lower's, in an impure directory.
func (s *site) copyOf(upper, lower string) {
	s.t.Helper()
	s.xattr(upper, trusted+"origin", s.handle(lower).Encode())
	s.xattr(filepath.Dir(upper), trusted+"impure", []byte("y"))
}

// build makes objects in the folder of the layers.
func (s *site) build(table string) {
	s.t.Helper()
	testkit.Build(s.t, filepath.Dir(s.Upper), table)
}

// indexed makes the copy of a lower's object in the index, with a name in the upper.
func (s *site) indexed(lower, upper string) (entry string) {
	s.t.Helper()
	h := s.handle(lower)
	entry = "work/index/" + h.IndexName()
	s.build("file " + entry + " \"copy\"")
	s.xattr(entry, trusted+"origin", h.Encode())
	s.xattr(entry, trusted+"nlink", []byte("U+1"))
	if upper != "" {
		must(s.t, os.Link(s.path(entry), s.path(upper)))
		s.xattr(filepath.Dir(upper), trusted+"impure", []byte("y"))
	}
	return entry
}
