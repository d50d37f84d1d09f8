package stack

import (
	"path"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// rootsOverride is an attribute that counts for every mounting user, because only root may set it.
const rootsOverride = "security.fuseoverlayfs.override_stat"

// After a failed lookup, a second one returns which object of which layer caused it, and why. For
// a name that can be looked up it returns nothing.
func TestDamaged(t *testing.T) {
	const redirected = "dir p/d\nxattr p/d " + redirectAttr + " "
	for _, c := range []struct {
		name   string
		layers []string // the upper first
		file   string
		change func(c *Config)
		layer  int
		reason string // "" is none
	}{
		{"nothing", []string{"dir p", "file p/f x"}, "p/f", nil, 0, ""},
		{"no such name", []string{"dir p", "file p/f x"}, "p/g", nil, 0, ""},
		{"a metacopy with its data", []string{"dir p\n" + meta("p/f"), "file p/f data"}, "p/f", nil, 0, ""},
		{"a redirect", []string{redirected + "/q", "dir q"}, "p/d", nil, 0, ""},
		{"a metacopy without", []string{"dir p\n" + meta("p/f"), "dir p"}, "p/f", nil, Upper, noData},
		{"one of a lower", []string{"dir p", "dir p\n" + meta("p/f"), "dir p"}, "p/f", nil, 1, noData},
		{"of the lowest", []string{"dir p", "dir p", "dir p\n" + meta("p/f")}, "p/f", nil, 2, noData},
		{"hidden by the upper", []string{"dir p\nfile p/f x", "dir p\n" + meta("p/f")}, "p/f", nil, 0, ""},
		{"its redirect", []string{"dir p\n" + meta("p/f", "a/b"), "dir p"}, "p/f", nil, Upper, damagedRedirect},
		{"metacopy=off", []string{"dir p", "dir p\n" + meta("p/f"), "file p/f data"}, "p/f",
			func(c *Config) { c.Features.MetaCopy = false }, 1, refusedMetacopy},
		{"a mark of no sense", []string{"dir p", "file p/f x\nxattr p/f " + metacopyAttr + " xx"}, "p/f", nil, 1, damagedMetacopy},
		{"a redirect of no sense", []string{redirected + "a/../b", "dir p/d"}, "p/d", nil, Upper, damagedRedirect},
		{"a redirect in a lower", []string{"dir p/d", redirected + "//", "dir p/d"}, "p/d", nil, 1, damagedRedirect},
		{"nofollow", []string{redirected + "/q", "dir q"}, "p/d",
			func(c *Config) { c.Redirects, c.Features.MetaCopy = RedirectsNoFollow, false }, Upper, refusedRedirect},
		{"an owner of no sense", []string{"dir p", "xattr . " + rootsOverride + " 0:0:0755:dir\ndir p\nfile p/f x\nxattr p/f " + rootsOverride + " zork"},
			"p/f", nil, 1, damagedOverride},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := newFolders(t, c.layers[0], c.layers[1:]...)
			cfg.Redirects, cfg.Features.MetaCopy = RedirectsOn, true
			if c.change != nil {
				c.change(&cfg)
			}
			s := openSite(t, cfg)
			dir, name := path.Split(c.file)
			m := s.dir(strings.TrimSuffix(dir, "/"))
			got := s.Damaged(&m.Dir, m, name)
			want := Damage{}
			if c.reason != "" {
				want = Damage{c.layer, c.file, c.reason}
			}
			if got != want {
				t.Errorf("%+v, want %+v", got, want)
			}
		})
	}
}

// An errno of a damaged file system is a reason by itself, for a name and for a directory.
func TestDamagedFileSystem(t *testing.T) {
	s := newSite(t, "dir p", "file p/f x")
	m := s.dir("p")
	for _, c := range []struct{ call, name string }{{"fstatat", "f"}, {"listxattr", ""}} {
		for _, errno := range []unix.Errno{unix.EIO, unix.EUCLEAN} {
			sys.SetFault(func(op sys.Op) error {
				if op.Call == c.call {
					return errno
				}
				return nil
			})
			got := s.Damaged(&m.Dir, m, c.name)
			sys.SetFault(nil)
			if got.Reason != errno.Error() || got.Path != path.Join("p", c.name) {
				t.Errorf("%s: %+v", c.call, got)
			}
		}
	}
}

func TestDamagedData(t *testing.T) {
	cfg := newFolders(t, "", meta("f", "/o/1"), "")
	cfg.Redirects, cfg.Features.MetaCopy = RedirectsOn, true
	dataOnly(t, &cfg, "file o/1 data")
	s := openSite(t, cfg)
	f, err := s.find("f")
	must(t, err)
	if got := s.DamagedData(f.Data); got.Found() {
		t.Errorf("%+v", got)
	}
	must(t, unix.Unlink(cfg.DataOnly[0]+"/o/1"))
	if got, want := s.DamagedData(f.Data), (Damage{DataOnly, "o/1", noData}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}
