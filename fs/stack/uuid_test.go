package stack

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/sys"
	"github.com/fuse-overlay/fuse-overlay/internal/testkit"
)

// openWithoutUUIDs opens s on a host that returns no UUID of any file system, as with Linux before
// 6.9 and earlier versions of this program.
func (s *site) openWithoutUUIDs() (err error) {
	sys.SetFault(func(op sys.Op) error {
		switch {
		case op.Call == "open_tree": // see withoutClones
			return unix.EPERM
		case op.Call == "ioctl" && strings.Contains(op.Name, "UUID"), strings.HasPrefix(op.Name, "/dev/disk/"), strings.HasSuffix(op.Name, "/uevent"):
			return unix.ENOTTY
		}
		return nil
	})
	defer sys.SetFault(nil)
	o, err := Open(s.cfg)
	if err == nil {
		s.Stack = o
	}
	return err
}

// bareUUID is what stands in the place of the UUID in the name of an index entry without one.
var bareUUID = strings.Repeat("0", 32)

// newBare returns a site whose upper has only handles without UUIDs. One object of the lower has
// three names, one of them a link of the copy; another has one name.
func newBare(t *testing.T) *site {
	t.Helper()
	c := newFolders(t, "dir d\ndir e", linkedLower+"\nfile d/single \"s\"")
	c.Features.Index = true
	s := &site{t: t, cfg: c}
	must(t, s.openWithoutUUIDs())
	s.copyUp("d/f")
	must(t, s.linkUp("d/f"))
	s.copyUp("d/single")
	s.shut()
	t.Cleanup(s.shut)
	if names := s.copies(); len(names) != 1 || !strings.Contains(names[0], bareUUID) {
		t.Fatalf("the index has %v: nothing is tested", names)
	}
	return s
}

// bare lists the handles of an upper that have no UUID.
func (s *site) bare() (bare []string) {
	s.t.Helper()
	for _, name := range s.copies() {
		if strings.Contains(name, bareUUID) {
			bare = append(bare, "entry "+name)
		}
	}
	for path, attr := range map[string]string{
		s.cfg.Upper: "origin", s.cfg.Work + "/index": "upper", s.cfg.Upper + "/d/f": "origin", s.cfg.Upper + "/d/single": "origin",
	} {
		value := make([]byte, 256)
		n, err := unix.Lgetxattr(path, "trusted.overlay."+attr, value)
		if err != nil {
			s.t.Fatal(path, err)
		}
		if string(value[5:21]) == string(make([]byte, 16)) || n < 21 {
			bare = append(bare, attr+" of "+path)
		}
	}
	return bare
}

// An upper whose handles lack the UUID is accepted, its links stay, and it is completed.
func TestHandlesWithoutUUID(t *testing.T) {
	s := newBare(t)
	want := lstat(t, filepath.Join(s.cfg.Lowers[0], "d/single")).Ino
	before := s.bare()
	s.cfg.ReadOnly = true
	s.open()
	if st, found := s.originOf("d/single"); !found || st.Ino != want || len(s.bare()) != len(before) {
		t.Errorf("read-only: the origin is %d, %v, want %d; without a UUID %v, before %v", st.Ino, found, want, s.bare(), before)
	}
	s.shut()
	s.cfg.ReadOnly = false
	for range 2 {
		s.open()
		if !s.KeepsLinks() {
			t.Fatal(s.Warnings())
		}
		s.wantLinks("completed", 3, "d/f", "d/g", "e/h")
		if st, found := s.originOf("d/single"); !found || st.Ino != want {
			t.Errorf("the origin of a single file is %d, %v; want %d", st.Ino, found, want)
		}
		if bare := s.bare(); len(bare) > 0 {
			t.Errorf("still without a UUID: %v", bare)
		}
		must(t, s.linkUpOnce("e/h"))
		s.shut()
	}
	// Without the UUID the upper belongs to no lower that the mount knows.
	if err := s.openWithoutUUIDs(); !errors.Is(err, errOtherLower) {
		t.Errorf("on a host that tells no UUID: %v", err)
	}
}

// linkUpOnce is linkUp of a name that may be a link already.
func (s *site) linkUpOnce(path string) error {
	s.t.Helper()
	if _, _, f := s.at(path); f.State == InUpper {
		return nil
	}
	return s.linkUp(path)
}

// A mount completes an upper, and a lookup an origin. If either stops at any call, the next mount
// completes it.
func TestEveryFaultOfCompletion(t *testing.T) {
	for _, stop := range []bool{false, true} {
		for i, fired := 0, true; fired; i++ {
			s := newBare(t)
			var err error
			fired = faulty(i, unix.EIO, stop, func() {
				var o *Stack
				if o, err = Open(s.cfg); err == nil {
					o.Close()
				}
			})
			where := fmt.Sprintf("call %d, stop %v", i, stop)
			if err != nil && !errors.Is(err, unix.EIO) {
				t.Errorf("%s: %v", where, err)
			}
			s.open()
			s.wantLinks(where, 3, "d/f", "d/g", "e/h")
			s.originOf("d/single")
			if bare := s.bare(); len(bare) > 0 {
				t.Errorf("%s: still without a UUID: %v", where, bare)
			}
			s.shut()
		}
	}
	// The new origin of a file that cannot be written is not an error of its lookup.
	s := newBare(t)
	s.open()
	must(t, failing("setxattr", unix.EIO, func() error {
		if _, found := s.originOf("d/single"); !found {
			t.Error("not found where it cannot be completed")
		}
		return nil
	}))
}

// If an entry with the UUID exists already, it counts.
func TestEntryThatIsCompleteAlready(t *testing.T) {
	s := newBare(t)
	s.open()
	copied := s.copies()[0]
	s.shut()
	index := filepath.Join(s.cfg.Work, indexName)
	bare := copied[:10] + bareUUID + copied[42:]
	must(t, os.WriteFile(filepath.Join(index, bare), nil, 0o600))
	value := make([]byte, 256)
	n, err := unix.Lgetxattr(filepath.Join(index, copied), "trusted.overlay.origin", value)
	must(t, err)
	copy(value[5:21], make([]byte, 16))
	must(t, unix.Lsetxattr(filepath.Join(index, bare), "trusted.overlay.origin", value[:n], 0))
	s.open()
	if left := s.copies(); len(left) != 1 || left[0] != copied {
		t.Errorf("left: %v", left)
	}
	s.wantLinks("both", 3, "d/f", "d/g", "e/h")
}

// A single lower without a UUID counts as that of earlier mounts, with options that forbid changes
// of lowers (ovl_lower_uuid_ok). Of two lowers without a UUID none does.
func TestLowersWithoutUUID(t *testing.T) {
	upper := testkit.MountImage(t, "ext4", "")
	var disks []string
	for range 2 {
		disk := testkit.MountImage(t, "ext4", "")
		testkit.Build(t, disk, linkedLower)
		disks = append(disks, disk)
	}
	open := func(features Features, redirects Redirects, lowers ...string) (s *site) {
		dir, err := os.MkdirTemp(upper, "")
		must(t, err)
		testkit.Build(t, dir, "dir upper/d\ndir upper/e")
		s = &site{t: t, cfg: Config{Lowers: lowers, Upper: dir + "/upper", Work: dir + "/work", Features: features, Redirects: redirects}}
		must(t, s.openWithoutUUIDs())
		s.copyUp("d/f")
		s.shut()
		must(t, s.openWithoutUUIDs())
		t.Cleanup(s.shut)
		return s
	}
	for what, c := range map[string]struct {
		features  Features
		redirects Redirects
		lowers    []string
		known     bool
	}{
		"index":         {Features{Index: true}, RedirectsFollow, disks[:1], true},
		"metacopy":      {Features{MetaCopy: true}, RedirectsOn, disks[:1], true},
		"redirect_dir":  {Features{}, RedirectsOn, disks[:1], true},
		"none of these": {Features{}, RedirectsFollow, disks[:1], false},
		"two of them":   {Features{Index: true}, RedirectsFollow, disks, false},
	} {
		s := open(c.features, c.redirects, c.lowers...)
		if known := s.sources[0].known; known != c.known {
			t.Errorf("%s: known %v, want %v", what, known, c.known)
		}
		keeps, warns := c.features.Index && c.known, c.features.Index && !c.known
		if s.KeepsLinks() != keeps || len(s.Warnings()) > 0 != warns {
			t.Errorf("%s: keeps links %v, warnings %q", what, s.KeepsLinks(), s.Warnings())
		}
		if s.KeepsLinks() {
			s.wantLinks(what, 3, "d/f", "d/g", "e/h")
		}
		s.shut()
	}
}
