package stack

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/ondisk"
)

const redirectAttr = "trusted.overlay.redirect"

// redirected sets redirects on directories of the layers, given as "layer/path=redirect".
func (s *site) redirected(all ...string) *site {
	s.t.Helper()
	for _, one := range all {
		where, to, _ := strings.Cut(one, "=")
		layer, path, _ := strings.Cut(where, "/")
		must(s.t, unix.Setxattr(filepath.Join(s.folder(int(layer[0]-'0')), path), redirectAttr, []byte(to), 0))
	}
	return s
}

func (s *site) wantListed(dir string, want ...string) {
	s.t.Helper()
	var got []string
	s.dir(dir).withNames().List(0, ^uint64(0), func(e *Listed) bool { got = append(got, e.Name); return true })
	slices.Sort(got)
	if !slices.Equal(got, want) {
		s.t.Errorf("%s lists %q, want %q", dir, got, want)
	}
}

// A redirect replaces the directories of the layers below that the name leads to.
func TestFollow(t *testing.T) {
	for _, c := range []struct {
		name      string
		layers    []string // the upper first
		redirects []string
		dir       string
		want      []string
	}{
		{"a name beside", []string{"dir p/d\nfile p/d/u", "file p/x/a\nfile p/d/no", "file p/x/b\nfile x/no"}, []string{"0/p/d=x"}, "p/d", []string{"a", "b", "u"}},
		{"a path", []string{"dir p/d", "file q/x/a\nfile p/d/no", "file q/x/b"}, []string{"0/p/d=/q/x"}, "p/d", []string{"a", "b"}},
		{"to nothing", []string{"file d/u", "file d/no"}, []string{"0/d=/q/x"}, "d", []string{"u"}},
		{"to a file", []string{"file d/u", "file q/x", "file q/x/no"}, []string{"0/d=/q/x"}, "d", []string{"u"}},
		{"to a whiteout", []string{"file d/u", "white q/x", "file q/x/no"}, []string{"0/d=/q/x"}, "d", []string{"u"}},
		{"to a marker", []string{"file d/u", "file q/.wh.x", "file q/x/no"}, []string{"0/d=/q/x"}, "d", []string{"u"}},
		{"through a file", []string{"file d/u", "file q", "file q/x/no"}, []string{"0/d=/q/x"}, "d", []string{"u"}},
		{"to an opaque directory", []string{"file d/u", "opaque q/x\nfile q/x/a", "file q/x/no"}, []string{"0/d=/q/x"}, "d", []string{"a", "u"}},
		{"through an opaque directory", []string{"file d/u", "opaque q\nfile q/x/a", "file q/x/no"}, []string{"0/d=/q/x"}, "d", []string{"a", "u"}},
		{"from an opaque directory", []string{"opaque d", "file x/no"}, []string{"0/d=x"}, "d", nil},
		{"on and on", []string{"dir d", "file x/a", "file y/b", "file z/c"}, []string{"0/d=x", "1/x=y", "2/y=z"}, "d", []string{"a", "b", "c"}},
		{"on from a name to a path", []string{"dir p/d", "file p/x/a", "file q/y/b"}, []string{"0/p/d=x", "1/p/x=/q/y"}, "p/d", []string{"a", "b"}},
		{"on from a path to a name", []string{"dir d", "file q/x/a", "file q/y/b"}, []string{"0/d=/q/x", "1/q/x=y"}, "d", []string{"a", "b"}},
		{"through one that was renamed", []string{"dir d", "file q/x/a", "file r/x/b\nfile q/x/no"}, []string{"0/d=/q/x", "1/q=/r"}, "d", []string{"a", "b"}},
		{"through one that was renamed beside", []string{"dir d", "file p/q/x/a", "file p/r/x/b"}, []string{"0/d=/p/q/x", "1/p/q=r"}, "d", []string{"a", "b"}},
		{"past an opaque directory by a path", []string{"dir d", "opaque q\nfile q/x/a", "file r/b"}, []string{"0/d=/q/x", "1/q/x=/r"}, "d", []string{"a", "b"}},
		{"of a lower", []string{"", "file d/a", "file x/b"}, []string{"1/d=x"}, "d", []string{"a", "b"}},
		{"of the lowest", []string{"", "file d/a", "file d/b"}, []string{"2/d=/nowhere"}, "d", []string{"a", "b"}},
		{"inside of what was renamed", []string{"dir d/e", "file x/e/a\nfile x/f/no\nfile d/e/no"}, []string{"0/d=x"}, "d/e", []string{"a"}},
		{"a name inside of what was renamed", []string{"dir d/e", "file x/f/a\nfile d/f/no"}, []string{"0/d=x", "0/d/e=f"}, "d/e", []string{"a"}},
		{"where the parent hides the layers", []string{"opaque p\ndir p/d", "file p/x/no"}, []string{"0/p/d=x"}, "p/d", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSite(t, c.layers[0], c.layers[1:]...).redirected(c.redirects...)
			s.wantListed(c.dir, c.want...)
		})
	}
}

// load looks a directory of the root up and loads it.
func (s *site) load(name string) error {
	root := s.dir("")
	f := root.lookup(name)
	d := s.unloaded(root.newDir(f.Dirs), name)
	return s.Load(&d.Dir, d, ToChange)
}

func TestRedirectsThatAreRefused(t *testing.T) {
	s := newSite(t, "dir d", "file x/a\ndir e", "file y/b").redirected("0/d=x", "1/x=y")
	for _, redirect := range []string{"..", ".", "", "a/b", "/", "//a", "/a/", "/a/../b", "a/"} {
		for _, where := range []string{"0/d", "1/x"} {
			s.redirected("0/d=x", "1/x=y", where+"="+redirect)
			s.shut()
			s.open()
			want := error(unix.EINVAL)
			if redirect == "" {
				want = nil // as none
			}
			if err := s.load("d"); err != want {
				t.Errorf("%s to %q: %v, want %v", where, redirect, err, want)
			}
		}
	}
	for _, redirect := range []string{strings.Repeat("n", 256), "/" + strings.Repeat("n", 256), "/x/" + strings.Repeat("n", 300)} {
		s.redirected("0/d="+redirect, "1/x=y")
		s.shut()
		s.open()
		if err := s.load("d"); err != nil { // it leads to nothing
			t.Errorf("a name of %d bytes: %v", len(redirect), err)
		}
	}
	s.redirected("0/d=x", "1/x=y")
	s.cfg.Redirects = RedirectsNoFollow
	s.remount()
	if err := s.load("d"); err != unix.EPERM {
		t.Errorf("with nofollow: %v", err)
	}
	s.cfg.Redirects = RedirectsOff
	for _, layer := range []string{s.cfg.Upper + "/d", s.cfg.Lowers[0] + "/x"} {
		value := make([]byte, 8)
		n, err := unix.Getxattr(layer, redirectAttr, value)
		must(t, err)
		must(t, unix.Removexattr(layer, redirectAttr))
		must(t, unix.Setxattr(layer, "user.overlay.redirect", value[:n], 0))
		s.remount()
		if err := s.load("d"); err != unix.EPERM {
			t.Errorf("one that every user may write, for root: %v", err)
		}
		must(t, unix.Removexattr(layer, "user.overlay.redirect"))
		must(t, unix.Setxattr(layer, redirectAttr, value[:n], 0))
	}
}

// In a user namespace a redirect with the prefix user. counts if the owner of the layer's root has
// no fewer rights than the daemon. In the upper it counts: the daemon has written it.
func TestRedirectsOfOwnersInANamespace(t *testing.T) {
	inNamespace(t)
	s := newSite(t, "dir d", "file x/a", "file y/b").redirected("0/d=x", "1/x=y")
	for i, layer := range []string{s.cfg.Upper, s.cfg.Lowers[0]} {
		dir := filepath.Join(layer, []string{"d", "x"}[i])
		value := make([]byte, 8)
		n, err := unix.Getxattr(dir, redirectAttr, value)
		must(t, err)
		must(t, unix.Removexattr(dir, redirectAttr))
		must(t, unix.Setxattr(dir, "user.overlay.redirect", value[:n], 0))
		for uid, want := range map[int]error{0: nil, 65534: nil, 1000: map[string]error{s.cfg.Lowers[0]: unix.EPERM}[layer]} {
			must(t, os.Chown(layer, uid, uid))
			s.remount()
			if err := s.load("d"); err != want {
				t.Errorf("in %s of user %d: %v, want %v", layer, uid, err, want)
			}
		}
		must(t, os.Chown(layer, 0, 0))
	}
}

// A rename writes the redirect first. Then the directory knows the places of its lower parts.
func TestRenamingKeepsTheParts(t *testing.T) {
	s := newSite(t, "dir p/d", "file p/d/a", "file p/d/b")
	s.cfg.Redirects = RedirectsOn
	s.remount()
	if !s.WritesRedirects() || !s.MayBeRedirected(Upper) || !s.MayBeRedirected(1) || s.MayBeRedirected(2) {
		t.Error("what may be redirected is wrong")
	}
	p := s.dir("p")
	from, to := p.end("d"), s.dir("").end("moved")
	d := s.dir("p/d").withNames()
	from.Merged, from.Redirect = true, "/p/d"
	must(t, s.Rename(from, to))
	d.SetPlaces(d.PlacesOf(from.Redirect, d.Path))
	if at, ok := d.MovedTo(2); !ok || at != "p/d" || d.Redirect() != "/p/d" {
		t.Errorf("the directory of layer 2 lies at %q, %v, by %q", at, ok, d.Redirect())
	}
	if _, ok := d.MovedTo(Upper); ok {
		t.Error("the upper's part does not lie under its name")
	}
	// Another rename needs no other redirect, and the parts stay where they are.
	d.up, d.path = nil, "moved"
	d.SetPlaces(d.PlacesOf("", d.Path))
	for layer := 1; layer <= 2; layer++ {
		if at, ok := d.MovedTo(layer); !ok || at != "p/d" || d.Redirect() != "/p/d" {
			t.Errorf("renamed again: the directory of layer %d lies at %q, %v, by %q", layer, at, ok, d.Redirect())
		}
	}
	s.wantListed("moved", "a", "b")
	s.remount()
	s.wantListed("moved", "a", "b")
	s.wantListed("p")
	// Without xattrs a rename fails as without redirects.
	s.xattrs = ondisk.NoXattrs
	end := s.dir("").end("moved")
	end.Merged, end.Redirect = true, "/elsewhere"
	if err := s.Rename(end, s.dir("").end("again")); err != unix.EXDEV {
		t.Errorf("without attributes: %v", err)
	}
	if _, err := os.Lstat(filepath.Join(s.cfg.Upper, "moved")); err != nil {
		t.Error(err)
	}
}
