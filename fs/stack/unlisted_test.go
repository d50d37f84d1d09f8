package stack

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/sys"
)

// leaveAll leaves every directory unlisted that can be, until so many names have been looked up in
// it.
func leaveAll(t *testing.T, looks int) {
	t.Helper()
	size, few := minUnlistedBytes, maxUnlistedLookups
	minUnlistedBytes, maxUnlistedLookups = 0, looks
	t.Cleanup(func() { minUnlistedBytes, maxUnlistedLookups = size, few })
}

// unlistedForms are what a layer may have under the name x; empty: only the directory.
func unlistedForms() (forms []string) {
	for _, form := range whiteouts {
		forms = append(forms, form)
	}
	return append(forms, "", "file %s/x \"1\"", "symlink %s/x y", "file %[1]s/x\nfile %[1]s/.wh.x", "white %[1]s/x\nfile %[1]s/.wh.x")
}

// In an unlisted directory a name means what it means in a listed one, whatever three layers have
// of it.
func TestUnlistedIsAsListed(t *testing.T) {
	leaveAll(t, 1000)
	forms := unlistedForms()
	var tables [3]strings.Builder
	n := 0
	for _, upper := range forms {
		for _, middle := range forms {
			for _, bottom := range forms {
				dir := fmt.Sprint("d", n)
				for i, form := range []string{upper, middle, bottom} {
					fmt.Fprintf(&tables[i], "dir %s\n", dir)
					if form != "" {
						fmt.Fprintf(&tables[i], strings.ReplaceAll(form, "%s", "%[1]s")+"\n", dir)
					}
				}
				n++
			}
		}
	}
	s := newSite(t, tables[0].String(), tables[1].String(), tables[2].String())
	root := s.dir("")
	for i := range n {
		dir := fmt.Sprint("d", i)
		f := root.lookup(dir)
		looked, listed := s.unloaded(root.newDir(f.Dirs), dir), s.unloaded(root.newDir(f.Dirs), dir)
		must(t, s.Load(&looked.Dir, looked, ToLookUp))
		must(t, s.Load(&listed.Dir, listed, ToChange))
		if !looked.unlisted() || listed.unlisted() {
			t.Fatalf("%s: unlisted is %v and %v", dir, looked.unlisted(), listed.unlisted())
		}
		if got, want := looked.MayMerge(), listed.MayMerge(); got != want || looked.Subdirs() != listed.Subdirs() {
			t.Errorf("%s: may merge %v, want %v; %d directories", dir, got, want, looked.Subdirs())
		}
		for _, name := range []string{"x", "y", ".wh.x", ".wh..wh..opq", strings.Repeat("n", NameMax)} {
			got, want := looked.lookup(name), listed.lookup(name)
			if !got.Exists() {
				got.Stat, want.Stat = sys.Stat{}, sys.Stat{}
			}
			if fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", want) {
				t.Errorf("%s/%s with %q, %q, %q:\n got %+v\nwant %+v", dir, name, forms[i/len(forms)/len(forms)], forms[i/len(forms)%len(forms)],
					forms[i%len(forms)], got, want)
			}
		}
		if !looked.unlisted() {
			t.Errorf("%s was listed", dir)
		}
		looked.close()
		listed.close()
	}
}

// Directories that are changed after they were left unlisted stay exact.
func TestUnlistedStaysExact(t *testing.T) {
	leaveAll(t, 3)
	if n := wantExactWorlds(t, 6, true); n < 100 {
		t.Errorf("%d directories were left unlisted: too few to tell", n)
	}
}

// Only large merged directories without subdirectories stay unlisted.
func TestWhatIsLeftUnlisted(t *testing.T) {
	for _, tt := range []struct {
		what   string
		layers []string
		size   int64
		want   bool
	}{
		{"large and flat", []string{"file d/a", "file d/b"}, 1, true},
		{"small", []string{"file d/a", "file d/b"}, 1 << 30, false},
		{"a directory in it", []string{"file d/a", "dir d/b"}, 1, false},
		{"of one layer", []string{"file d/a", ""}, 1, false},
		{"opaque", []string{"opaque d\nfile d/a", "file d/b"}, 1, false},
		{"opaque by a marker", []string{"file d/a\nfile d/.wh..wh..opq", "file d/b"}, 1, false},
		{"opaque further down", []string{"file d/a", "file d/b\nfile d/.wh..wh..opq", "file d/c"}, 1, true},
		{"redirected", []string{"dir d\nxattr d trusted.overlay.redirect e", "file d/b\nfile e/c"}, 1, false},
		{"large further down", []string{"dir d", "dir d", "dir d", "dir d", "file d/b"}, 4*4096 + 1, false},
	} {
		t.Run(tt.what, func(t *testing.T) {
			leaveAll(t, 1000)
			minUnlistedBytes = tt.size
			s := newSite(t, tt.layers[0], tt.layers[1:]...)
			root := s.dir("")
			f := root.lookup("d")
			d := s.unloaded(root.newDir(f.Dirs), "d")
			if got := s.LeaveUnlisted(&d.Dir, d); got != tt.want || got != d.unlisted() || got == (d.parts == nil) {
				t.Errorf("left unlisted %v, want %v; %v", got, tt.want, d.parts)
			}
			must(t, s.Load(&d.Dir, d, ToChange))
			if d.unlisted() {
				t.Error("unlisted after it was loaded to be changed")
			}
		})
	}
}

// With ListAtOnce no directory is left unlisted.
func TestListAtOnce(t *testing.T) {
	leaveAll(t, 1000)
	s := newSite(t, "file d/a", "file d/b")
	s.toLook, s.listAtOnce = true, true
	if s.dir("d").unlisted() {
		t.Error("the directory was left unlisted")
	}
}

// After some lookups the directory is listed; at once, if a lookup finds a directory.
func TestUnlistedIsListedInTheEnd(t *testing.T) {
	leaveAll(t, 2)
	s := newSite(t, "file d/a", "file d/b")
	s.toLook = true
	d := s.dir("d")
	for looks := range 3 {
		if !d.unlisted() {
			t.Errorf("listed after %d looks", looks)
		}
		d.lookup("b")
	}
	if d.unlisted() {
		t.Error("still unlisted")
	}
	d = s.dir("d")
	must(t, unix.Mkdir(s.folder(1)+"/d/late", 0o755))
	must(t, unix.Mkdir(s.folder(Upper)+"/d/late", 0o755))
	if f := d.lookup("late"); !slices.Equal(f.Dirs, []uint16{Upper, 1}) || d.unlisted() {
		t.Errorf("a directory that was not there before: %+v, unlisted %v", f, d.unlisted())
	}
}

// An error does not count as a missing name.
func TestErrorsInUnlisted(t *testing.T) {
	leaveAll(t, 1000)
	for _, name := range []string{"x", ".wh.x", "below", ".wh.below"} {
		s := newSite(t, "file d/a\nwhite d/below", "file d/b")
		s.toLook = true
		d := s.dir("d")
		sys.SetFault(func(op sys.Op) error {
			if op.Name == name {
				return unix.EIO
			}
			return nil
		})
		var f Found
		err := s.lookup(&d.Dir, d, strings.TrimPrefix(name, ".wh."), &f)
		sys.SetFault(nil)
		if err != unix.EIO {
			t.Errorf("%s cannot be looked at: %+v, %v", name, f, err)
		}
	}
}
