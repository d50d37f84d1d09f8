package stack

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/sys"
	"github.com/fuse-overlay/fuse-overlay/internal/testkit"
)

// The forms of absence, as tables of one directory.
var whiteouts = map[string]string{
	"device":        "white %s/x",
	"trusted xattr": "xattr %[1]s trusted.overlay.opaque x\nfile %[1]s/x\nxattr %[1]s/x trusted.overlay.whiteout y",
	"user xattr":    "xattr %[1]s user.overlay.opaque x\nfile %[1]s/x\nxattr %[1]s/x user.overlay.whiteout \"\"",
	"marker":        "file %s/.wh.x",
}

var opaques = map[string]string{
	"trusted": "xattr %s trusted.overlay.opaque y",
	"user":    "xattr %s user.overlay.opaque y",
	"own":     "xattr %s user.fuseoverlayfs.opaque y",
	"marker":  "file %s/.wh..wh..opq",
}

// layersWith returns four tables, the upper first. In layer at the directory dir has the form, and
// the layers below have an x of their own in it. With own, layer at has one as well.
func layersWith(at int, dir, form string, own bool) []string {
	var tables []string
	for i := range 4 {
		table := "dir " + dir + "\n"
		if i == at {
			table += fmt.Sprintf(form, dir) + "\n"
		}
		if i > at || own && i == at {
			table += fmt.Sprintf("file %s/x \"%d\"\n", dir, i)
		}
		tables = append(tables, table)
	}
	return tables
}

// Every form of a whiteout is read in every layer: it hides what lies below it, and is not seen
// itself.
func TestWhiteoutsOfEveryFormInEveryLayer(t *testing.T) {
	for form, table := range whiteouts {
		for at := range 4 {
			for _, dir := range []string{".", "d"} {
				t.Run(fmt.Sprintf("%s/layer %d/%s", form, at, dir), func(t *testing.T) {
					layers := layersWith(at, dir, table, false)
					s := newSite(t, layers[0], layers[1:]...)
					d := s.dir(strings.TrimPrefix(dir, "."))
					f := d.lookup("x")
					want := Found{State: Absent}
					if at == Upper {
						want = Found{State: Whiteout, Below: true, Marker: form == "marker"}
					}
					if f.State != want.State || f.Below != want.Below || f.Marker != want.Marker {
						t.Errorf("x is %+v, want %+v", f, want)
					}
					if names := d.names(); slices.Contains(names, "x") || slices.Contains(names, ".wh.x") {
						t.Errorf("listed: %v", names)
					}
					if f := d.lookup(".wh.x"); f.State != Absent {
						t.Errorf("the marker is %+v", f)
					}
				})
			}
		}
	}
}

// A marker hides what lies below its layer, not what lies beside it.
func TestMarkerHidesTheLayersBelowOnly(t *testing.T) {
	for at := range 4 {
		layers := layersWith(at, "d", "file %s/.wh.x", true)
		s := newSite(t, layers[0], layers[1:]...)
		f := s.dir("d").lookup("x")
		if !f.Exists() || f.Layer != at || f.Marker != (at == Upper) {
			t.Errorf("layer %d: x is %+v", at, f)
		}
	}
}

// A name that looks like a marker and is none hides nothing, and does not show.
func TestStrangeMarkers(t *testing.T) {
	s := newSite(t, "file .wh.\nfile .wh...\nfile .wh..\nfile .wh..wh.x\nfile .wh..wh.plnk", "file x\nfile .wh.x\nfile .wh")
	if names := s.dir("").names(); !slices.Equal(names, []string{".wh", "x"}) && !slices.Equal(names, []string{"x", ".wh"}) {
		t.Errorf("listed: %v", names)
	}
}

// Every form of an opaque directory is read in every layer.
func TestOpaqueOfEveryFormInEveryLayer(t *testing.T) {
	for form, table := range opaques {
		for at := range 4 {
			t.Run(fmt.Sprintf("%s/layer %d", form, at), func(t *testing.T) {
				layers := layersWith(at, "d", table, false)
				for i := range layers {
					layers[i] += fmt.Sprintf("file d/only%d\n", i)
				}
				s := newSite(t, layers[0], layers[1:]...)
				d := s.dir("d")
				var want []string
				for i := range at + 1 {
					want = append(want, fmt.Sprint("only", i))
				}
				names := d.names()
				slices.Sort(names)
				if !slices.Equal(names, want) {
					t.Errorf("listed: %v, want %v", names, want)
				}
				if f := d.lookup("x"); f.State != Absent || f.Below {
					t.Errorf("x is %+v", f)
				}
				if d.HasLower() != (at > 0) || d.MayMerge() != (at > 0) {
					t.Errorf("HasLower %v, MayMerge %v", d.HasLower(), d.MayMerge())
				}
				if top := d.TopLower(); top != min(at, 1) {
					t.Errorf("the topmost lower is %d", top)
				}
			})
		}
	}
}

// An opaque xattr of another value means nothing, and so does a whiteout xattr without the opaque
// xattr "x" of its directory.
func TestMarksThatMeanNothing(t *testing.T) {
	s := newSite(t, `
		dir d
		xattr d trusted.overlay.opaque n
		xattr d user.fuseoverlayfs.opaque x
		file d/empty
		xattr d/empty trusted.overlay.whiteout y
		dir e
		xattr e trusted.overlay.opaque x
		file e/full "data"
		xattr e/full trusted.overlay.whiteout y
		dir e/dir
		xattr e/dir trusted.overlay.whiteout y
		char e/null 1/3
	`, "file d/below\nfile e/below\nfile e/dir/below")
	for path, dir := range map[string]bool{
		"d/below": false, "d/empty": false, "e/below": false, "e/full": false, "e/dir": true, "e/dir/below": false, "e/null": false,
	} {
		if _, _, f := s.at(path); !f.Exists() || f.IsDir() != dir {
			t.Errorf("%s is %+v", path, f)
		}
	}
}

// The merge rule: only directories merge, and a whiteout, a non-directory or an opaque directory
// ends the search.
func TestMergeRule(t *testing.T) {
	s := newSite(t,
		"dir a\nfile b\nwhite c\ndir e\nopaque g",
		"dir a\ndir b\ndir c\nfile d\nfile e\ndir g\ndir h\nopaque i\ndir j",
		"dir a\ndir c\ndir d\ndir e\ndir g\nwhite h\ndir i\ndir j",
		"dir a\ndir b\ndir c\ndir d\ndir e\ndir g\ndir h\ndir i\ndir j",
	)
	root := s.dir("")
	for name, want := range map[string]Found{
		"a": {State: InUpper, Dirs: []uint16{0, 1, 2, 3}, Below: true},
		"b": {State: InUpper, Below: true},
		"c": {State: Whiteout, Below: true},
		"d": {State: InLower, Layer: 1, Below: true},
		"e": {State: InUpper, Dirs: []uint16{0}, Below: true},
		"g": {State: InUpper, Dirs: []uint16{0, 1, 2, 3}, Below: true}, // its opaque xattr is read when it is loaded
		"h": {State: InLower, Layer: 1, Dirs: []uint16{1}, Below: true},
		"i": {State: InLower, Layer: 1, Dirs: []uint16{1, 2, 3}, Below: true},
		"j": {State: InLower, Layer: 1, Dirs: []uint16{1, 2, 3}, Below: true},
		"k": {State: Absent},
	} {
		f := root.lookup(name)
		f.Stat = sys.Stat{}
		if fmt.Sprint(f) != fmt.Sprint(want) {
			t.Errorf("%s is %+v, want %+v", name, f, want)
		}
	}
	for path, merges := range map[string]bool{"a": true, "g": false, "e": false, "h": false, "i": false, "j": true} {
		if d := s.dir(path); d.MayMerge() != merges {
			t.Errorf("%s: MayMerge is %v", path, d.MayMerge())
		}
	}
	if d := s.dir("g"); d.HasLower() || !d.HasUpper() || d.TopLower() != Upper {
		t.Error("g has a lower part")
	}
}

// Below is true for a whiteout or marker in the upper if a lower would show without it.
func TestBelow(t *testing.T) {
	s := newSite(t,
		"white a\nwhite b\nfile .wh.c\nfile .wh.d\nfile e\nfile f\nfile g\nfile .wh.g\nwhite h\nwhite i\nfile .wh.i",
		"file a\nfile c\nfile e\nwhite f\nfile g\nwhite h\nfile i",
		"file f\nfile h",
	)
	root := s.dir("")
	for name, want := range map[string]Found{
		"a": {State: Whiteout, Below: true},
		"b": {State: Whiteout},
		"c": {State: Whiteout, Below: true, Marker: true},
		"d": {State: Whiteout, Marker: true},
		"e": {State: InUpper, Below: true},
		"f": {State: InUpper},
		"g": {State: InUpper, Below: true, Marker: true},
		"h": {State: Whiteout},
		"i": {State: Whiteout, Below: true}, // the device is what a new object has to replace
	} {
		f := root.lookup(name)
		if f.State != want.State || f.Below != want.Below || f.Marker != want.Marker {
			t.Errorf("%s is %+v, want %+v", name, f, want)
		}
	}
}

// A directory of one layer is not listed to be looked into, and looks the same before and after it
// is.
func TestDirectoryOfOneLayer(t *testing.T) {
	for layer, tables := range [][]string{
		{"xattr . trusted.overlay.opaque x\nopaque d\nxattr d trusted.overlay.opaque x\nfile d/f\ndir d/sub\nwhite d/gone\nfile d/hidden\n" +
			"xattr d/hidden trusted.overlay.whiteout y", ""},
		{"", "xattr . trusted.overlay.opaque x\ndir d\nxattr d trusted.overlay.opaque x\nfile d/f\ndir d/sub\nwhite d/gone\nfile d/hidden\n" +
			"xattr d/hidden trusted.overlay.whiteout y"},
	} {
		s := newSite(t, tables[0], tables[1])
		d := s.dir("d")
		if d.IsListed() {
			t.Fatal("listed without need")
		}
		exists := InUpper
		if layer == 1 {
			exists = InLower
		}
		for range 2 {
			for name, state := range map[string]State{"f": exists, "sub": exists, "none": Absent} {
				if f := d.lookup(name); f.State != state || f.IsDir() != (name == "sub") || f.Exists() && f.Layer != layer {
					t.Errorf("%s is %+v", name, f)
				}
			}
			for _, name := range []string{"gone", "hidden"} {
				if f := d.lookup(name); f.Exists() || (f.State == Whiteout) != (layer == Upper) {
					t.Errorf("%s is %+v", name, f)
				}
			}
			d.withNames()
		}
		if d.Subdirs() != 1 || d.Empty() {
			t.Errorf("%d subdirectories, empty %v", d.Subdirs(), d.Empty())
		}
	}
}

func TestNames(t *testing.T) {
	long := strings.Repeat("n", NameMax)
	odd := []string{"\xff\xfe", "a\nb", " ", "*", "-", "名前", long}
	s := newSite(t, "", "")
	for _, name := range odd {
		must(t, os.WriteFile(filepath.Join(s.cfg.Lowers[0], name), nil, 0o644))
	}
	root := s.dir("")
	for _, name := range odd {
		if f := root.lookup(name); f.State != InLower {
			t.Errorf("%q is %+v", name, f)
		}
	}
	var f Found
	if err := s.lookup(&root.Dir, root, long+"n", &f); err != unix.ENAMETOOLONG {
		t.Errorf("a name of %d bytes: %v", len(long)+1, err)
	}
}

// Once a directory is listed, a name costs one stat and a missing one nothing, however many layers
// there are.
func TestLookupCostsTheSameWithAnyNumberOfLayers(t *testing.T) {
	for _, layers := range []int{1, 8, 128} {
		tables := slices.Repeat([]string{"file d/other"}, layers)
		tables[layers-1] += "\nfile d/x"
		s := newSite(t, "dir d", tables...)
		d := s.dir("d").withNames()
		if made := calls(func() { d.lookup("x") }); !slices.Equal(made, []string{"fstatat"}) {
			t.Errorf("%d layers: %v", layers, made)
		}
		if made := calls(func() { d.lookup("none") }); len(made) != 0 {
			t.Errorf("%d layers, missing name: %v", layers, made)
		}
	}
}

// A lower that changes under the mount: no crash, and what is gone is absent.
func TestLowerThatChanges(t *testing.T) {
	s := newSite(t, "dir d", "file d/gone\nfile d/kind\ndir d/dir", "file d/low")
	d := s.dir("d").withNames()
	lower := s.cfg.Lowers[0]
	must(t, os.Remove(lower+"/d/gone"))
	must(t, os.Remove(lower+"/d/kind"))
	must(t, os.Remove(lower+"/d/dir"))
	testkit.Build(t, lower, "dir d/kind\nfile d/dir\nfile d/new")
	if f := d.lookup("gone"); f.State != Absent {
		t.Errorf("gone is %+v", f)
	}
	if f := d.lookup("kind"); !f.IsDir() || !slices.Equal(f.Dirs, []uint16{1}) {
		t.Errorf("kind is %+v", f)
	}
	if f := d.lookup("dir"); !f.Exists() || f.IsDir() {
		t.Errorf("dir is %+v", f)
	}
	// A layer's directory that went away, or became something else, takes no part.
	for _, how := range []string{"", "file d", "symlink d /"} {
		e := s.mergedDir(NewDir([]uint16{0}, nil), "d")
		e.Dir = NewDir([]uint16{0, 1, 2}, nil)
		must(t, os.RemoveAll(lower+"/d"))
		testkit.Build(t, lower, how)
		if names := e.names(); !slices.Equal(names, []string{"low"}) {
			t.Errorf("%q: listed %v", how, names)
		}
	}
}

// A lookup and a load return the error of a layer. The next one does not.
func TestErrorsOfALayer(t *testing.T) {
	s := newSite(t, "xattr . trusted.overlay.opaque x\nfile empty", "file f\nchar c 1/3", "file f")
	fail := func(call string, f func() error) {
		t.Helper()
		sys.SetFault(func(op sys.Op) error {
			if op.Call == call {
				return unix.EIO
			}
			return nil
		})
		err := f()
		sys.SetFault(nil)
		if err != unix.EIO {
			t.Errorf("%s fails: %v", call, err)
		}
	}
	for _, call := range []string{"getdents64", "listxattr", "getxattr", "fstatat"} {
		d := &merged{Dir: s.RootDir(), s: s, open: map[int]*sys.Dir{}}
		fail(call, func() error { return s.Load(&d.Dir, d, ToChange) })
		must(t, s.Load(&d.Dir, d, ToChange))
		if len(d.names()) != 3 {
			t.Errorf("after an error of %s: %v", call, d.names())
		}
		d.close()
	}
	d := s.dir("")
	var f Found
	fail("fstatat", func() error { return s.lookup(&d.Dir, d, "f", &f) })
	one := s.mergedDir(NewDir([]uint16{0}, nil), "")
	fail("listxattr", func() error { return s.lookup(&one.Dir, one, "empty", &f) })
	fail("listxattr", func() error { d := NewDir([]uint16{0}, nil); return s.Load(&d, one, ToChange) })
	away := &merged{s: s, path: "none", open: map[int]*sys.Dir{}}
	for _, layers := range [][]uint16{{0}, {0, 1}} {
		away.Dir = NewDir(layers, nil)
		if err := s.Load(&away.Dir, away, ToChange); err != unix.ENOENT {
			t.Errorf("a directory that is not there: %v", err)
		}
	}
}
