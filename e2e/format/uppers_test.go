package format

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
	"github.com/fuse-overlay/fuse-overlay/internal/testkit"
)

// EnvUppers is a variable of the environment: folders on file systems of other types, separated by
// spaces. TestUppersOfOtherTypes puts an upper into each as well.
const EnvUppers = "FUSE_OVERLAY_UPPERS"

// upperTypes are the file systems that get an upper, besides those of formatDisks.
var upperTypes = []struct {
	name string
	disk func(t *testing.T, e *harness.Env) string // a folder on it
}{
	{"tmpfs", func(t *testing.T, _ *harness.Env) string { return testkit.Mount(t, "tmpfs", "tmpfs", "") }},
	{"tmpfs with inode numbers of 32 bits", func(t *testing.T, _ *harness.Env) string {
		return testkit.Mount(t, "tmpfs", "tmpfs", "inode32")
	}},
	{"xfs with inode numbers of 32 bits", func(t *testing.T, _ *harness.Env) string {
		return testkit.MountImage(t, "xfs", "loop,inode32")
	}},
	{"ext4 with inodes of 128 bytes", func(t *testing.T, _ *harness.Env) string {
		return testkit.MountImage(t, "ext4", "loop", "-I", "128")
	}},
	{"ext4 without a journal", func(t *testing.T, _ *harness.Env) string {
		return testkit.MountImage(t, "ext4", "loop", "-O", "^has_journal")
	}},
	{"ext2", func(t *testing.T, _ *harness.Env) string { return testkit.MountImage(t, "ext2", "loop") }},
	{"overlay", func(t *testing.T, e *harness.Env) string {
		dir, err := os.MkdirTemp(e.Dir, "below")
		harness.Check(t, err)
		below := &harness.Overlay{T: t, Env: e, Lowers: []string{dir + "/lower"},
			Upper: dir + "/upper", Work: dir + "/work", Point: dir + "/merged"}
		harness.Mkdir(t, below.Lowers[0], below.Upper, below.Work, below.Point)
		harness.Check(t, below.MountKernelWith())
		return below.Point
	}},
}

const uppersLower = `
	file d/f 0644 "text"
	file d/gone "gone"
	file d/moved 0640 "moved"
	xattr d/moved user.a "1"
	file dir/a "a"
	file dir/sub/b "b"
	file top "top"
	file linked "linked"
	symlink link d/f
	fifo pipe
	file long "long"`

const uppersScript = `
	create new 0644 "new"
	append d/f " and more"
	unlink d/gone
	rename d/moved moved
	chmod moved 0600
	rmtree dir
	mkdir dir 0750
	create dir/again 0644 "again"
	unlink top
	mkdir top 0755
	create top/in 0600 "in"
	link linked second
	append second ", linked"
	rename link top/link
	rename pipe top/pipe
	mknod sock 0600 sock
	symlink other nowhere
	truncate long 2
	chown new 1000 1001
	mkdir empty 0700
	rmdir empty
	create swap 0644 "one"`

// upperFeature is something that not every file system of an upper has, or not on every kernel.
type upperFeature struct {
	try    func(dir string) error
	script string // changes that need it
}

var (
	userXattrs = upperFeature{func(dir string) error {
		return unix.Setxattr(dir, "user.probe", []byte("x"), 0)
	}, `
	setxattr long user.b value`}
	exchanges = upperFeature{func(dir string) error {
		one, other := dir+"/one", dir+"/other"
		err := errors.Join(os.Mkdir(one, 0o700), os.Mkdir(other, 0o700),
			unix.Renameat2(unix.AT_FDCWD, one, unix.AT_FDCWD, other, unix.RENAME_EXCHANGE))
		return errors.Join(err, os.Remove(one), os.Remove(other))
	}, `
	exchange swap new`}
)

// Uppers of other types than those of the format matrix show the same tree as one on the file
// system of this run, while they are mounted and afterwards.
func TestUppersOfOtherTypes(t *testing.T) {
	types := upperTypes
	for _, dir := range strings.Fields(os.Getenv(EnvUppers)) {
		types = append(types[:len(types):len(types)], struct {
			name string
			disk func(*testing.T, *harness.Env) string
		}{filepath.Base(dir), func(*testing.T, *harness.Env) string { return dir }})
	}
	for _, c := range types {
		t.Run(c.name, func(t *testing.T) {
			harness.EachMode(t, harness.OnlyRoot, func(t *testing.T, e *harness.Env) {
				want := e.Overlay(t, uppersLower)
				want.Mount()
				dir, err := os.MkdirTemp(c.disk(t, e), "upper")
				harness.Check(t, err)
				t.Cleanup(func() { harness.RemoveTree(dir) })
				got := want.Second(t)
				got.Upper, got.Work = dir+"/upper", dir+"/work"
				harness.Mkdir(t, got.Upper, got.Work)
				got.Mount()
				script, view := uppersScript, harness.FullView
				if err := exchanges.try(dir); err == nil {
					script += exchanges.script
				}
				if err := userXattrs.try(dir); err == nil {
					script += userXattrs.script
				} else { // tmpfs before Linux 6.6
					view.Xattr = func(_, name string) (string, bool) { return name, !strings.HasPrefix(name, "user.") }
				}
				for _, o := range []*harness.Overlay{want, got} {
					if failed := runScript(o, script); failed != "" {
						t.Errorf("%s: %s", o.Upper, failed)
					}
				}
				harness.CompareTrees(t, "the mount", want.Point, got.Point, view)
				if faults := harness.IdentityFaults(got.Point); faults != "" {
					t.Error(faults)
				}
				got.Remount()
				harness.CompareTrees(t, "the mount, mounted again", want.Point, got.Point, view)
				got.Unmount()
			})
		})
	}
}
