package stack

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/sys"
	"github.com/fuse-overlay/fuse-overlay/internal/testkit"
)

// Each error names the option, the directory and the reason, and leaves nothing open.
func TestOpenErrors(t *testing.T) {
	base := t.TempDir()
	at := func(name string) string { return filepath.Join(base, name) }
	testkit.Build(t, base, `
		dir lower
		dir upper
		dir upper/inside
		dir work
		dir work/inside
		file file
		file foreign/note
		dir lost+found
		symlink alias upper/inside
		dir disk
	`)
	mountTmpfs(t, at("disk"))
	ok := Config{Lowers: []string{at("lower")}, Upper: at("upper"), Work: at("w")}
	for _, c := range []struct {
		name   string
		change func(*Config)
		want   string
	}{
		{"no lower", func(c *Config) { c.Lowers = nil }, "no lowerdir given"},
		{"too many lowers", func(c *Config) { c.Lowers = slices.Repeat(c.Lowers, maxLayers+1) },
			fmt.Sprintf("lowerdir %q: too many layers", at("lower"))},
		{"no work", func(c *Config) { c.Work = "" }, "upperdir and workdir belong together: give both or neither"},
		{"no upper", func(c *Config) { c.Upper = "" }, "upperdir and workdir belong together: give both or neither"},
		{"missing lower", func(c *Config) { c.Lowers = append(c.Lowers, at("none")) },
			fmt.Sprintf("lowerdir %q: no such file or directory", at("none"))},
		{"lower is a file", func(c *Config) { c.Lowers[0] = at("file") }, fmt.Sprintf("lowerdir %q: not a directory", at("file"))},
		{"missing upper", func(c *Config) { c.Upper = at("none") },
			fmt.Sprintf("upperdir %q: no such file or directory", at("none"))},
		{"upper is a file", func(c *Config) { c.Upper = at("file") }, fmt.Sprintf("upperdir %q: not a directory", at("file"))},
		{"work is a file", func(c *Config) { c.Work = at("file") }, fmt.Sprintf("workdir %q: not a directory", at("file"))},
		{"work below nothing", func(c *Config) { c.Work = at("none/work") },
			fmt.Sprintf("workdir %q: no such file or directory", at("none/work"))},
		{"work on another mount", func(c *Config) { c.Work = at("disk/work") },
			fmt.Sprintf("workdir %q: is not on the same mount as the upperdir", at("disk/work"))},
		{"work holds foreign things", func(c *Config) { c.Work = at("foreign") },
			fmt.Sprintf("workdir %q: is not empty and not the work directory of an overlay", at("foreign"))},
		{"work is upper", func(c *Config) { c.Work = at("upper") },
			fmt.Sprintf("workdir %q: is the upperdir: give another directory beside it", at("upper"))},
		{"work inside upper", func(c *Config) { c.Work = at("alias/work") },
			fmt.Sprintf("workdir %q: lies inside the upperdir %q: give a directory beside it", at("alias/work"), at("upper"))},
		{"upper inside work", func(c *Config) { c.Upper, c.Work = at("work/inside"), at("work") },
			fmt.Sprintf("workdir %q: holds the upperdir %q: give a directory beside it", at("work"), at("work/inside"))},
		{"lower is upper", func(c *Config) { c.Lowers = append(c.Lowers, at("upper")) },
			fmt.Sprintf("lowerdir %q: lies inside the upperdir %q", at("upper"), at("upper"))},
		{"lower inside upper", func(c *Config) { c.Lowers[0] = at("alias") },
			fmt.Sprintf("lowerdir %q: lies inside the upperdir %q", at("alias"), at("upper"))},
		{"lower inside work", func(c *Config) { c.Lowers[0], c.Work = at("work/inside"), at("work") },
			fmt.Sprintf("lowerdir %q: lies inside the workdir %q", at("work/inside"), at("work"))},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := ok
			cfg.Lowers = slices.Clone(ok.Lowers)
			c.change(&cfg)
			fds, paths := openFDs(t), pathsBelow(t, base)
			s, err := Open(cfg)
			if err == nil {
				s.Close()
				t.Fatal("no error")
			}
			if left := pathsBelow(t, base); !slices.Equal(left, paths) {
				t.Errorf("left: %v, before: %v", left, paths)
			}
			if err.Error() != c.want {
				t.Errorf("error:\n%s\nwant:\n%s", err, c.want)
			}
			if n := openFDs(t); n != fds {
				t.Errorf("%d descriptors are left open", n-fds)
			}
		})
	}
	s, err := Open(ok)
	must(t, err)
	s.Close()
}

func pathsBelow(t *testing.T, dir string) (paths []string) {
	t.Helper()
	must(t, filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		paths = append(paths, path)
		return err
	}))
	return paths
}

func TestUpperAndWorkAreTakenForOneMount(t *testing.T) {
	s := newSite(t, "", "file f")
	if err := os.Mkdir(s.cfg.Upper+"2", 0o755); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ upper, work, want string }{
		{s.cfg.Upper, s.cfg.Work + "2", fmt.Sprintf("upperdir %q: is in use by another mount (EBUSY)", s.cfg.Upper)},
		{s.cfg.Upper + "2", s.cfg.Work, fmt.Sprintf("workdir %q: is in use by another mount (EBUSY)", s.cfg.Work)},
	} {
		other, err := Open(Config{Lowers: s.cfg.Lowers, Upper: c.upper, Work: c.work})
		if err == nil {
			other.Close()
			t.Fatal("opened twice")
		}
		if err.Error() != c.want {
			t.Errorf("error:\n%s\nwant:\n%s", err, c.want)
		}
		if _, err := os.Lstat(s.cfg.Work + "2"); err == nil {
			t.Error("a work directory was made, and stays")
		}
	}
	lowerOnly, err := Open(Config{Lowers: s.cfg.Lowers})
	must(t, err)
	lowerOnly.Close()
	s.remount() // given back by Close
}

// Open waits for a mount that is ending.
func TestOpenWaitsForAnEndingMount(t *testing.T) {
	c := newFolders(t, "", "file f")
	ending, err := Open(c)
	must(t, err)
	ended := make(chan struct{})
	time.AfterFunc(100*time.Millisecond, func() { ending.Close(); close(ended) })
	next, err := Open(c)
	<-ended
	must(t, err)
	next.Close()
}

func TestErrorKeepsTheErrno(t *testing.T) {
	_, err := Open(Config{Lowers: []string{"/no/such/lower"}})
	if !errors.Is(err, unix.ENOENT) {
		t.Errorf("%v is not ENOENT", err)
	}
}

func TestUpperMayLieInsideALower(t *testing.T) {
	base := t.TempDir()
	testkit.Build(t, base, "dir upper\nfile f")
	s, err := Open(Config{Lowers: []string{base}, Upper: base + "/upper", Work: base + "/work"})
	must(t, err)
	s.Close()
}

func TestWithoutUpper(t *testing.T) {
	c := newFolders(t, "", "file a", "file b")
	c.Upper, c.Work = "", ""
	s := openSite(t, c)
	if s.Writable() {
		t.Error("writable")
	}
	root := s.dir("")
	if root.HasUpper() || root.Top() != 1 {
		t.Errorf("the root lies in %v", root.Layers())
	}
	if names := root.names(); !slices.Equal(names, []string{"a", "b"}) {
		t.Errorf("names: %v", names)
	}
}

// The next mount removes what a killed daemon, or the kernel's overlayfs, has left in the work
// directory.
func TestOpenSweepsTheWorkDirectory(t *testing.T) {
	c := newFolders(t, "", "file f")
	must(t, os.Mkdir(c.Work, 0o755))
	testkit.Build(t, c.Work, `
		file work/#1 "staged"
		white work/#ff
		file work/#2/a/b "moved here to be emptied"
		dir work/#3 0000
		dir index
		dir incompat/volatile
	`)
	s := openSite(t, c)
	s.wantEmptyWork()
	testkit.Want(t, "the work directory", c.Work, "dir work 0700\ndir index\ndir incompat/volatile")
}

// Staged objects do not inherit a group or an ACL from the work directory.
func TestWorkDirectoryHandsNothingDown(t *testing.T) {
	c := newFolders(t, "white x\nwhite d", "file x\nfile d/f")
	must(t, os.Mkdir(c.Work, 0o755))
	must(t, os.Lchown(c.Work, 0, 4711))
	must(t, unix.Chmod(c.Work, 0o2755))
	must(t, unix.Setxattr(c.Work, defaultACL, []byte(aclText("u::rwx,u:1234:rwx,g::rwx,m::rwx,o::rwx")), 0))
	s := openSite(t, c)
	root := s.dir("").withNames()
	for name, mode := range map[string]uint32{"x": unix.S_IFREG | 0o640, "d": unix.S_IFDIR | 0o750} {
		f := root.lookup(name)
		file, err := s.Create(&root.Dir, root.upper(), name, &f, &Object{Mode: mode})
		must(t, err)
		if file != nil {
			file.Close()
		}
	}
	testkit.Want(t, "the upper", c.Upper, "file x 0640\nopaque d 0750")
}

func TestOpenWithFiveHundredLowers(t *testing.T) {
	const layers = 500
	base := t.TempDir()
	c := Config{Upper: base + "/upper", Work: base + "/work"}
	must(t, os.Mkdir(c.Upper, 0o755))
	for i := range layers {
		lower := fmt.Sprintf("%s/l%d", base, i)
		testkit.Build(t, base, fmt.Sprintf("file l%d/own%d\nfile l%d/all \"%d\"\nfile l%d/dir/%d", i, i, i, i, i, i))
		c.Lowers = append(c.Lowers, lower)
	}
	s := openSite(t, c)
	root := s.dir("")
	if n := len(root.names()); n != layers+2 {
		t.Errorf("%d names in the root", n)
	}
	for _, i := range []int{0, 1, 255, 256, layers - 1} {
		if f := root.lookup(fmt.Sprint("own", i)); f.State != InLower || f.Layer != i+1 {
			t.Errorf("own%d: %+v", i, f)
		}
	}
	if f := root.lookup("all"); f.Layer != 1 {
		t.Errorf("all comes from layer %d", f.Layer)
	}
	f := root.lookup("dir")
	if len(f.Dirs) != layers {
		t.Errorf("dir lies in %d layers", len(f.Dirs))
	}
	if n := len(s.dir("dir").names()); n != layers {
		t.Errorf("%d names in dir", n)
	}
}

func TestDevicesAreToldOnce(t *testing.T) {
	base := t.TempDir()
	testkit.Build(t, base, "dir a\ndir b\ndir c")
	mountTmpfs(t, base+"/b")
	s := openSite(t, Config{Lowers: []string{base + "/a", base + "/b", base + "/c"}})
	if devs := s.Devices(); len(devs) != 3 || devs[0] != 0 || devs[1] == devs[2] {
		t.Errorf("devices: %v", devs)
	}
	if devs := openSite(t, Config{Lowers: []string{base + "/a", base + "/c"}}).Devices(); len(devs) != 1 {
		t.Errorf("devices of one file system: %v", devs)
	}
}

// Every system call of Open fails once. Open returns an error or a working stack, and leaks
// nothing. The next Open succeeds and leaves a clean work directory.
func TestEveryFaultOfOpen(t *testing.T) {
	c := newFolders(t, "white f", "file f", "file g")
	must(t, os.Mkdir(c.Work, 0o700))
	testkit.Build(t, c.Work, "dir work 0700")
	for _, errno := range []unix.Errno{unix.EIO, unix.ENOSPC} {
		for i := 0; ; i++ {
			testkit.Build(t, c.Work, "file work/#1/left")
			fds, n := openFDs(t), 0
			sys.SetFault(func(sys.Op) error {
				n++
				if n-1 == i {
					return errno
				}
				return nil
			})
			s, err := Open(c)
			sys.SetFault(nil)
			if err == nil {
				s.Close()
			} else if !errors.Is(err, errno) || !strings.Contains(err.Error(), "dir \"/") {
				t.Fatalf("call %d: %v", i, err)
			}
			if now := openFDs(t); now != fds {
				t.Fatalf("call %d: %d descriptors are left open", i, now-fds)
			}
			again := openSite(t, c)
			again.wantEmptyWork()
			again.shut()
			if n <= i {
				break
			}
		}
	}
}
