package stack

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/sys"
	"github.com/fuse-overlay/fuse-overlay/internal/testkit"
	"github.com/fuse-overlay/fuse-overlay/internal/testkit/systest"
)

func TestMain(m *testing.M) { testkit.MainInMemory(m) }

var (
	must          = testkit.Must
	openFDs       = testkit.OpenFDs
	calls         = systest.Names
	withoutClones = systest.WithoutClones
)

// site is a stack on folders of its own.
type site struct {
	t *testing.T
	*Stack
	cfg   Config
	dirs  []*merged // to be closed
	loads int       // directories loaded

	noFlags  bool // names cannot be exchanged, see refuseRenameFlags
	toLook   bool // directories are loaded to look names up
	unlisted int  // those that were left so
}

// newFolders makes the layers that tables describe, the upper first. Without a table for a lower it
// makes an empty one.
func newFolders(t *testing.T, upper string, lowers ...string) Config {
	t.Helper()
	if len(lowers) == 0 {
		lowers = []string{""}
	}
	l := testkit.NewLayers(t, upper, lowers...)
	return Config{Upper: l.Upper, Work: l.Work, Lowers: l.Lowers, ACL: true}
}

// newSite opens a stack of layers that tables describe, the upper first.
func newSite(t *testing.T, upper string, lowers ...string) *site {
	t.Helper()
	return openSite(t, newFolders(t, upper, lowers...))
}

func openSite(t *testing.T, c Config) *site {
	t.Helper()
	s := &site{t: t, cfg: c}
	s.open()
	t.Cleanup(s.shut)
	return s
}

func (s *site) open() {
	s.t.Helper()
	var err error
	withoutClones(func() { s.Stack, err = Open(s.cfg) })
	must(s.t, err)
}

// remount opens the same folders anew; the format stays what the test made it.
func (s *site) remount() {
	s.t.Helper()
	forms, xattrs := s.whiteouts.Forms, s.xattrs
	s.shut()
	s.open()
	s.whiteouts.Forms, s.xattrs = forms, xattrs
	if s.noFlags {
		s.refuseRenameFlags()
	}
}

// shut closes the stack and all that was opened in it.
func (s *site) shut() {
	for _, d := range s.dirs {
		d.close()
	}
	s.Close()
	s.dirs, s.Stack = nil, &Stack{layers: make([]layer, 1)}
}

// folder is where a layer lies.
func (s *site) folder(layer int) string {
	if layer == Upper {
		return s.cfg.Upper
	}
	return s.cfg.Lowers[layer-1]
}

func (s *site) wantEmptyWork() {
	s.t.Helper()
	left, err := os.ReadDir(filepath.Join(s.cfg.Work, workName))
	must(s.t, err)
	shared := sharedDevice(s.t, filepath.Join(s.cfg.Work, workName))
	left = slices.DeleteFunc(left, func(e os.DirEntry) bool { return e.Name() == shared })
	if len(left) > 0 {
		s.t.Errorf("%d objects are left in the work directory, %s first", len(left), left[0].Name())
	}
}

// merged is a merged directory in use, as the caller of the stack holds it.
type merged struct {
	Dir
	s    *site
	path string  // in the merged tree
	up   *merged // the parent; nil for the root, and where layers have all under the merged names
	open map[int]*sys.Dir
}

// Layer implements [LayerDirs].
func (m *merged) Layer(layer int) (*sys.Dir, error) {
	if d := m.open[layer]; d != nil {
		return d, nil
	}
	d, err := m.s.Root(layer).OpenDir(m.Path(layer))
	if err == nil {
		m.open[layer] = d
	}
	return d, err
}

// Has implements [LayerDirs].
func (m *merged) Has(layer int) bool { return m.open[layer] != nil }

// Path implements [LayerDirs].
func (m *merged) Path(layer int) string {
	if at, ok := m.MovedTo(layer); ok {
		return at
	}
	if m.up == nil {
		return m.path
	}
	return filepath.Join(m.up.Path(layer), filepath.Base(m.path))
}

func (m *merged) close() {
	for _, d := range m.open {
		d.Close()
	}
	m.open = map[int]*sys.Dir{}
}

// upper is the directory in the upper.
func (m *merged) upper() *sys.Dir {
	m.s.t.Helper()
	d, err := m.Layer(Upper)
	must(m.s.t, err)
	return d
}

// newDir is a directory that was looked up in m.
func (m *merged) newDir(layers []uint16) Dir { return NewDir(layers, m.query("")) }

// query returns the query of a name that m has noted.
func (m *merged) query(name string) *Query {
	q := Query{Name: name}
	m.s.note(&q, &m.Dir)
	return &q
}

// lookup does all steps of a lookup.
func (s *site) lookup(d *Dir, o LayerDirs, name string, f *Found) error {
	q := Query{Name: name}
	for {
		need, err := s.Resolve(&q, d, o, f)
		switch {
		case err != nil:
		case need == NeedLoad:
			err = s.Load(d, o, q.Use)
		case need == NeedUpper:
			_, err = o.Layer(Upper)
		case need == NeedLayers:
			err = s.LookUpInLayers(&q, o, f)
		case need == NeedData:
			return s.LookUpInLayers(&q, o, f)
		default:
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (m *merged) lookup(name string) Found {
	m.s.t.Helper()
	var f Found
	must(m.s.t, m.s.lookup(&m.Dir, m, name, &f))
	return f
}

// withNames lists the directory where that has not been done.
func (m *merged) withNames() *merged {
	m.s.t.Helper()
	must(m.s.t, m.s.Load(&m.Dir, m, ToList))
	return m
}

func (s *site) mergedDir(d Dir, path string) *merged {
	s.t.Helper()
	m := s.unloaded(d, path)
	s.loaded(m)
	return m
}

// loaded loads a directory: with toLook for lookups, else to change it. It loads every second one
// by Read and Merge.
func (s *site) loaded(m *merged) {
	s.t.Helper()
	use := ToChange
	if s.toLook {
		use = ToLookUp
	}
	if s.loads++; s.loads%2 == 0 && m.MayMerge() && !s.toLook {
		s.Merge(&m.Dir, m.readAll())
	}
	must(s.t, s.Load(&m.Dir, m, use))
	if m.unlisted() {
		s.unlisted++
	}
}

// changing loads a directory that is to be changed.
func (m *merged) changing() *merged {
	m.s.t.Helper()
	must(m.s.t, m.s.Load(&m.Dir, m, ToChange))
	return m
}

func (s *site) unloaded(d Dir, path string) *merged {
	m := &merged{Dir: d, s: s, path: path, open: map[int]*sys.Dir{}}
	s.dirs = append(s.dirs, m)
	return m
}

// dir looks the directory at path up, "" for the root, with nothing known before.
func (s *site) dir(path string) *merged {
	s.t.Helper()
	m := s.mergedDir(s.RootDir(), "")
	if path == "" {
		return m
	}
	for name := range strings.SplitSeq(path, "/") {
		f := m.lookup(name)
		if !f.IsDir() {
			s.t.Fatalf("%s: %q is no directory: %+v", path, name, f)
		}
		below := s.unloaded(m.newDir(f.Dirs), filepath.Join(m.path, name))
		below.up = m
		s.loaded(below)
		m = below
	}
	return m
}

// at looks a path up.
func (s *site) at(path string) (*merged, string, Found) {
	s.t.Helper()
	dir, name := filepath.Split(path)
	m := s.dir(strings.TrimSuffix(dir, "/"))
	return m, name, m.lookup(name)
}

// names are the visible entries, in order.
func (m *merged) names() []string {
	m.s.t.Helper()
	var names []string
	m.withNames().List(0, ^uint64(0), func(e *Listed) bool { names = append(names, e.Name); return true })
	return names
}

// view returns what the stack shows, in the form of a snapshot.
func (s *site) view() string {
	s.t.Helper()
	lines := s.viewDir(s.dir(""), nil)
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

func (s *site) viewDir(m *merged, lines []string) []string {
	s.t.Helper()
	defer m.close()
	m.withNames().List(0, ^uint64(0), func(e *Listed) bool {
		f := m.lookup(e.Name)
		path := filepath.Join(m.path, e.Name)
		if !f.Exists() || direntType(f.Stat.Mode) != e.Type {
			s.t.Fatalf("%s is listed with type %d and looked up as %+v", path, e.Type, f)
		}
		o, err := testkit.Read(filepath.Join(s.folder(f.Layer), path))
		must(s.t, err)
		for name := range o.Xattrs {
			if s.names.Private(name) {
				delete(o.Xattrs, name)
			}
		}
		o.Path = path
		lines = append(lines, o.String())
		if f.IsDir() {
			lines = s.viewDir(s.mergedDir(m.newDir(f.Dirs), path), lines)
		}
		return true
	})
	return lines
}

// wantView fails the test if the stack does not show what the table describes, now and after a
// remount.
func (s *site) wantView(what, table string) {
	s.t.Helper()
	folder := s.t.TempDir()
	testkit.Build(s.t, folder, table)
	want := testkit.Snapshot(s.t, folder)
	if d := testkit.Diff(want, s.view()); d != "" {
		s.t.Errorf("%s: the view differs (- want, + have):\n%s", what, d)
	}
	s.remount()
	if d := testkit.Diff(want, s.view()); d != "" {
		s.t.Errorf("%s: the view after a remount differs (- want, + have):\n%s", what, d)
	}
	s.wantEmptyWork()
}

func mountTmpfs(t *testing.T, point string) {
	t.Helper()
	must(t, unix.Mount("tmpfs", point, "tmpfs", 0, ""))
	t.Cleanup(func() { must(t, unix.Unmount(point, unix.MNT_DETACH)) })
}
