package merge

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/sys"
	"github.com/fuse-overlay/fuse-overlay/internal/testkit"
	"github.com/fuse-overlay/fuse-overlay/internal/testkit/systest"
)

// eachWay runs f with one mount for all layers, on which objects are renamed, and with a lower on a
// mount of its own, to which they are copied.
func eachWay(t *testing.T, f func(t *testing.T, prepare func(*site))) {
	t.Run("renames", func(t *testing.T) { f(t, func(*site) {}) })
	t.Run("copies", func(t *testing.T) { f(t, bindLower) })
}

// bindLower mounts the topmost lower on itself.
func bindLower(s *site) {
	lower := s.Lowers[0]
	must(s.t, unix.Mount(lower, lower, "", unix.MS_BIND, ""))
	s.t.Cleanup(func() {
		if err := unix.Unmount(lower, unix.MNT_DETACH); err != nil && err != unix.EINVAL { // EINVAL: unbindLower
			s.t.Error(err)
		}
	})
}

// unbindLower undoes bindLower, if that was called. A test that makes many sites calls it: each
// merge reads the mount table.
func unbindLower(s *site) {
	if err := unix.Unmount(s.Lowers[0], unix.MNT_DETACH); err != nil && err != unix.EINVAL {
		s.t.Error(err)
	}
}

// wantEmpty fails the test if the upper holds anything, or the work directory anything of a merge.
func wantEmpty(s *site) {
	s.t.Helper()
	for _, dir := range []string{s.Upper, filepath.Join(s.Work, "work"), filepath.Join(s.Work, "index")} {
		entries, err := os.ReadDir(dir)
		if err != nil && !os.IsNotExist(err) || len(entries) > 0 {
			s.t.Errorf("%s holds %v: %v", dir, entries, err)
		}
	}
	must(s.t, filepath.Walk(s.Lowers[0], func(p string, _ os.FileInfo, err error) error {
		if strings.Contains(p, lowerStaging) {
			s.t.Errorf("%s is left", p)
		}
		return err
	}))
}

// The merged tree is the same before and after. Without further lowers the lower is a plain tree.
func TestMerge(t *testing.T) {
	for _, tt := range cases {
		t.Run(tt.name, func(t *testing.T) {
			eachWay(t, func(t *testing.T, prepare func(*site)) {
				s := newSite(t, tt.upper, tt.lowers...)
				prepare(s)
				before := s.shown()
				must(t, s.merge())
				wantEmpty(s)
				s.wantShown("the view has changed", before)
				if tt.plain != "" {
					testkit.Want(t, "the lower", s.Lowers[0], tt.plain)
					s.Upper, s.Work = "", ""
					s.wantShown("the lower alone shows another tree", before)
				}
			})
		})
	}
}

// Flags of chattr are those of the merged tree, and do not stop a merge.
func TestFlags(t *testing.T) {
	eachWay(t, func(t *testing.T, prepare func(*site)) {
		s := newSite(t, "file a \"1\"\nfile b\nxattr b "+trusted+"protattr i\nfile c\nfile d/x\nxattr d "+trusted+"protattr a\nwhite gone\nfile e/y",
			"file a\nfile b\nfile c\nfile d/x\nfile gone\nfile e/x")
		for _, f := range [][]string{{"+i", "a"}, {"+i", "gone"}, {"+i", "e"}} {
			p := filepath.Join(s.Lowers[0], f[1])
			testkit.Run(t, "chattr", f[0], p)
			t.Cleanup(func() { _ = unix.Chmod(p, 0o755); testkit.Run(t, "chattr", "-R", "-f", "-i", "-a", s.Lowers[0]) })
		}
		testkit.Run(t, "chattr", "+d", filepath.Join(s.Upper, "c"))
		prepare(s)
		before := s.shown()
		must(t, s.merge())
		wantEmpty(s)
		s.wantShown("the view has changed", before)
		s.Upper, s.Work = "", ""
		s.wantShown("the lower alone shows another tree", before)
	})
}

// Owners, modes and types of an upper that has them in attributes become real in the lower.
func TestOwnersInXattrs(t *testing.T) {
	const stat = "user.containers.override_stat"
	const upper = "xattr . " + stat + " 0:0:0755:dir\nfile a 0600 \"1\"\nxattr a " + stat + " 3:4:0711:file\nfile f 0600\nxattr f " + stat + " 0:0:0640:pipe" +
		"\nfile c 0600\nxattr c " + stat + " 5:6:0600:char-1-3\ndir d 0700\nxattr d " + stat + " 1:1:0711:dir\nxattr a user.x 1\nfile d/x\nlink d/y d/x"
	eachWay(t, func(t *testing.T, prepare func(*site)) {
		s := newSite(t, upper, "file a\nfile d/old")
		s.permissions = 2
		prepare(s)
		before := s.shown()
		must(t, s.merge())
		wantEmpty(s)
		s.wantShown("the view has changed", before)
		testkit.Want(t, "the lower", s.Lowers[0], "file a 0711 \"1\"\nown a 3 4\nxattr a user.x 1\nfifo f 0640\nchar c 1/3 0600\nown c 5 6\n"+
			"dir d 0711\nown d 1 1\nfile d/x\nlink d/y d/x\nfile d/old")
	})
	s := newSite(t, upper, "file a\nxattr . "+stat+" 0:0:0755:dir\nfile d/old\nxattr d/old "+stat+" 9:9:0640:file")
	s.permissions = 2
	before := s.shown()
	must(t, s.merge())
	s.wantShown("where the lower keeps owners in attributes too, the view has changed", before)
}

// Data of a data-only layer is copied, so that the lower does not need that layer any more.
func TestDataOnly(t *testing.T) {
	eachWay(t, func(t *testing.T, prepare func(*site)) {
		const to = "size f 3\nxattr f " + metacopy + "\"\"\nxattr f " + redirect
		s := newSite(t, "file f 0600\n"+to+"/f", "file f\n"+to+"/x\nfile g", "file x \"abc\"")
		s.Lowers, s.dataOnly = s.Lowers[:1], s.Lowers[1:]
		prepare(s)
		before := s.shown()
		must(t, s.merge())
		wantEmpty(s)
		s.Upper, s.Work, s.dataOnly = "", "", nil
		s.wantShown("the lower alone shows another tree", before)
	})
}

// What cannot be merged is refused, and nothing changes.
func TestRefused(t *testing.T) {
	for _, tt := range []struct {
		name, upper, lower string
		prepare            func(*site)
		want               string
	}{
		{"a mount in the lower", "file d/a", "dir d", func(s *site) {
			d := filepath.Join(s.Lowers[0], "d")
			must(s.t, unix.Mount("none", d, "tmpfs", 0, ""))
			s.t.Cleanup(func() { must(s.t, unix.Unmount(d, unix.MNT_DETACH)) })
		}, errMountInLower.Error()},
		{"a read-only lower", "file a", "", func(s *site) {
			bindLower(s)
			must(s.t, unix.Mount("", s.Lowers[0], "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""))
		}, "read-only file system"},
		{"a lower that shows twice", "dir a\nxattr a " + redirect + "/x\ndir b\nxattr b " + redirect + "/x\nwhite x", "file x/f", nil, errShownTwice.Error()},
		{"a lower that shows still", "dir a\nxattr a " + redirect + "/x", "file x/f", nil, errShownTwice.Error()},
		{"a volatile mount", "file a", "", func(s *site) { testkit.Build(s.t, s.Work, "dir work/incompat/volatile/dirty") }, "volatile"},
	} {
		s := newSite(t, tt.upper, tt.lower)
		if tt.prepare != nil {
			tt.prepare(s)
		}
		upper, lower := testkit.Snapshot(t, s.Upper), testkit.Snapshot(t, s.Lowers[0])
		if err := s.merge(); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v", tt.name, err)
		}
		if testkit.Snapshot(t, s.Upper) != upper || testkit.Snapshot(t, s.Lowers[0]) != lower {
			t.Errorf("%s: the layers have changed", tt.name)
		}
	}
	s := newSite(t, "file a", "", "")
	m, err := s.open()
	must(t, err)
	for i := range 2 {
		other := *s
		other.Work = t.TempDir()
		if i == 1 {
			other.Upper = t.TempDir()
		}
		if _, err := other.open(); err == nil || !strings.Contains(err.Error(), "in use") {
			t.Errorf("a second merge %d: %v", i, err)
		}
	}
	m.Close()
}

// A merge that was begun is completed with its own layers only, and a dry run reports it.
func TestOtherLayers(t *testing.T) {
	s := newSite(t, "file a", "file b")
	m, err := s.open()
	must(t, err)
	_, err = s.plan(m)
	must(t, err)
	systest.While(systest.Call("syncfs"), unix.EIO, func() { err = m.Run() })
	if err == nil {
		t.Fatal("no error")
	}
	m.Close()
	m, err = s.open()
	must(t, err)
	_, err = s.plan(m)
	must(t, err)
	systest.While(func(op sys.Op) bool { return m.committed }, unix.EIO, func() { err = m.Run() })
	m.Close()
	var incomplete *IncompleteError
	if !errors.As(err, &incomplete) {
		t.Fatal(err)
	}
	if _, err := OpenToRead(s.config()); !errors.Is(err, errBegun) {
		t.Errorf("a dry run: %v", err)
	}
	other := *s
	other.Lowers = []string{t.TempDir()}
	if _, err := other.open(); !errors.Is(err, errOtherLayers) {
		t.Errorf("with another lower: %v", err)
	}
	must(t, s.merge())
	wantEmpty(s)
}

// A copy of the merged tree equals it, and the layers stay as they are.
func TestInto(t *testing.T) {
	for _, tt := range cases {
		s := newSite(t, tt.upper, tt.lowers...)
		before := s.shown()
		upper, lower := testkit.Snapshot(t, s.Upper), testkit.Snapshot(t, s.Lowers[0])
		target := filepath.Join(t.TempDir(), "copy")
		must(t, Into(s.config(), target, func() {}))
		if testkit.Snapshot(t, s.Upper) != upper || testkit.Snapshot(t, s.Lowers[0]) != lower {
			t.Errorf("%s: the layers have changed", tt.name)
		}
		if err := Into(s.config(), target, func() {}); !errors.Is(err, unix.EEXIST) {
			t.Errorf("%s: over a directory: %v", tt.name, err)
		}
		s.Upper, s.Work, s.Lowers = "", "", []string{target}
		if diff := testkit.Diff(before, s.shown()); diff != "" {
			t.Errorf("%s: the copy differs:\n%s", tt.name, diff)
		}
	}
}
