package fs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/lock"
	"github.com/fuse-overlay/fuse-overlay/internal/testkit"
	"github.com/fuse-overlay/fuse-overlay/internal/testkit/systest"
)

func TestMain(m *testing.M) { testkit.MainInMemory(m) }

var (
	must    = testkit.Must
	want    = testkit.WantError
	openFDs = testkit.OpenFDs
	calls   = systest.Calls
)

// withoutRanks skips a test that counts allocations, or that would take minutes, in builds that
// check the ranks of locks.
func withoutRanks(t *testing.T) {
	t.Helper()
	if lock.Checked {
		t.Skip("this build checks each lock")
	}
}

// site is an overlay on folders of its own, and the kernel that sends it requests.
type site struct {
	*kernel
	t       *testing.T
	cfg     Config
	markers bool // whiteouts are written as markers
}

// newFolders makes the layers that tables describe, the upper first.
func newFolders(t *testing.T, upper string, lowers ...string) Config {
	t.Helper()
	l := testkit.NewLayers(t, upper, lowers...)
	return Config{Upper: l.Upper, Work: l.Work, Lowers: l.Lowers, Log: zap.NewNop()}
}

// newSite opens an overlay of layers that tables describe, the upper first.
func newSite(t *testing.T, upper string, lowers ...string) *site {
	t.Helper()
	return openSite(t, newFolders(t, upper, lowers...))
}

func openSite(t *testing.T, c Config) *site {
	t.Helper()
	return (&site{t: t, cfg: c}).opened()
}

// opened opens the overlay until the end of the test.
func (s *site) opened() *site {
	s.t.Helper()
	s.open()
	s.t.Cleanup(s.shut)
	return s
}

// open opens the overlay as a mount does. Mounts are not cloned: to take a clone apart again, the
// kernel waits for all its processors.
func (s *site) open() {
	s.t.Helper()
	if s.markers {
		s.t.Setenv(markersVariable, "1")
	} else {
		s.t.Setenv(markersVariable, "")
	}
	var o *Overlay
	var err error
	systest.WithoutClones(func() { o, err = Open(s.cfg) })
	must(s.t, err)
	s.kernel = newKernel(o)
}

// shut closes the overlay, which the kernel has forgotten.
func (s *site) shut() {
	if s.kernel != nil {
		s.forget(nil)
		s.o.Close()
	}
	s.kernel = nil
}

func (s *site) remount() {
	s.t.Helper()
	s.shut()
	s.open()
}

// do makes a request that must succeed.
func (s *site) do(r request) {
	s.t.Helper()
	must(s.t, r())
}

func (s *site) wantEmptyWork(what string) {
	s.t.Helper()
	left, err := os.ReadDir(filepath.Join(s.cfg.Work, "work"))
	must(s.t, err)
	left = slices.DeleteFunc(left, isSharedWhiteout)
	if len(left) > 0 {
		s.t.Errorf("%s: %d objects are left in the work directory, %s first", what, len(left), left[0].Name())
	}
}

// isSharedWhiteout reports whether an entry of the work directory or the index is the device that
// the whiteouts are links of. It stays there until the mount ends.
func isSharedWhiteout(e os.DirEntry) bool {
	return strings.HasPrefix(e.Name(), "#") && e.Type()&os.ModeCharDevice != 0
}

// view returns what the overlay shows, as a snapshot of a folder does.
func (k *kernel) view() (string, error) {
	var lines []string
	err := k.walkTree(1, "", func(p string, id uint64) error {
		o, err := k.describe(id)
		if err == nil {
			o.Path = p
			lines = append(lines, o.String())
		}
		return err
	})
	slices.Sort(lines)
	return strings.Join(lines, "\n"), err
}

func (s *site) view() string {
	s.t.Helper()
	v, err := s.kernel.view()
	must(s.t, err)
	return v
}

// walkTree calls f for everything below a directory.
func (k *kernel) walkTree(id uint64, at string, f func(p string, id uint64) error) error {
	entries, err := k.list(id, 4096)
	if err != nil {
		return fmt.Errorf("list %q: %w", at, err)
	}
	for _, e := range entries {
		if e.name == "." || e.name == ".." {
			continue
		}
		p := filepath.Join(at, e.name)
		if err := f(p, e.entry.NodeId); err != nil {
			return fmt.Errorf("%s: %w", p, err)
		}
		if e.entry.Mode&unix.S_IFMT != unix.S_IFDIR {
			continue
		}
		if err := k.walkTree(e.entry.NodeId, p, f); err != nil {
			return err
		}
	}
	return nil
}

// describe requests all of an object.
func (k *kernel) describe(id uint64) (*testkit.Object, error) {
	a, err := k.getattr(id)
	if err != nil {
		return nil, err
	}
	o := &testkit.Object{Mode: a.Mode, UID: a.Uid, GID: a.Gid, Rdev: LibcDev(a.Rdev), Xattrs: map[string]string{}}
	h, buf := k.header(id), make([]byte, 4096)
	n, s := k.o.ListXAttr(nil, &h, buf)
	if err := errorOf(s); err != nil {
		return nil, err
	}
	for name := range strings.SplitSeq(string(buf[:n]), "\x00") {
		if name == "" {
			continue
		}
		value := make([]byte, 4096)
		n, s := k.o.GetXAttr(nil, &h, name, value)
		if err := errorOf(s); err != nil {
			return nil, err
		}
		o.Xattrs[name] = string(value[:n])
	}
	if flags := k.flags(id); flags != "" {
		o.Xattrs["flags"] = flags
	}
	switch a.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		data, err := k.readNode(id, 0, int(a.Size)+1)
		if err == nil && uint64(len(data)) != a.Size {
			err = fmt.Errorf("%d bytes of %d", len(data), a.Size)
		}
		o.Data = []byte(data)
		return o, err
	case unix.S_IFLNK:
		target, s := k.o.Readlink(nil, &h)
		o.Target = string(target)
		return o, errorOf(s)
	}
	return o, nil
}

// audit requests everything in every way and fails the test where the replies do not agree.
func (s *site) audit(what string) {
	s.t.Helper()
	check := func(p string, id uint64) error {
		a, err := s.getattr(id)
		if err != nil || a.Mode&unix.S_IFMT != unix.S_IFDIR {
			return err
		}
		return s.auditDir(id, a.Nlink)
	}
	if err := errors.Join(check("", 1), s.walkTree(1, "", check)); err != nil {
		s.t.Errorf("%s: %v", what, err)
	}
}

func (s *site) auditDir(id uint64, links uint32) error {
	entries, err := s.list(id, 64<<10)
	if err != nil {
		return err
	}
	parts, err := s.list(id, 512)
	if err != nil {
		return err
	}
	if len(parts) != len(entries) {
		return fmt.Errorf("%d entries at once, %d in parts", len(entries), len(parts))
	}
	seen, subdirs := map[string]bool{}, uint32(0)
	for i, e := range entries {
		if seen[e.name] || parts[i].name != e.name || parts[i].off != e.off {
			return fmt.Errorf("entry %d is %q at %d, in parts %q at %d, seen before: %v", i, e.name, e.off, parts[i].name, parts[i].off,
				seen[e.name])
		}
		seen[e.name] = true
		if e.name == "." || e.name == ".." {
			continue
		}
		found, err := s.lookup(id, e.name)
		if err != nil {
			return fmt.Errorf("%s is listed: %w", e.name, err)
		}
		a, err := s.getattr(found.NodeId)
		if err != nil {
			return fmt.Errorf("%s: %w", e.name, err)
		}
		a.Atime, a.Atimensec = found.Atime, found.Atimensec
		if found.NodeId != e.entry.NodeId || found.Attr != a || e.ino != a.Ino || e.typ != a.Mode>>12 {
			return fmt.Errorf("%s is listed as %+v, looked up as %+v, and has %+v", e.name, e, found, a)
		}
		if a.Mode&unix.S_IFMT == unix.S_IFDIR {
			subdirs++
		}
	}
	if links != subdirs+2 {
		return fmt.Errorf("%d links of a directory with %d directories", links, subdirs)
	}
	return nil
}

// wantView fails the test when the overlay shows anything else than the table.
func (s *site) wantView(what, table string) {
	s.t.Helper()
	folder := s.t.TempDir()
	testkit.Build(s.t, folder, table)
	if d := testkit.Diff(testkit.Snapshot(s.t, folder), s.view()); d != "" {
		s.t.Errorf("%s: the view differs (- want, + have):\n%s", what, d)
	}
}
