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
	"github.com/fuse-overlay/fuse-overlay/whiteout"
)

func (m *merged) remove(name string) error {
	f := m.lookup(name)
	if !f.IsDir() {
		return m.s.Remove(&m.Dir, m.upper(), name, &f)
	}
	return m.s.RemoveDir(&m.Dir, m.upper(), name, &f)
}

// removables are the ways in which an object may lie in the layers, as tables for the upper and the
// lower. below: a lower shows if the upper has nothing.
var removables = map[string]struct {
	upper, lower string
	below        bool
}{
	"upper file":                   {"file x", "", false},
	"upper file over a file":       {"file x", "file x", true},
	"upper file over a directory":  {"file x", "dir x\nfile x/old", true},
	"upper file and its marker":    {"file x\nfile .wh.x", "file x", true},
	"upper file, needless marker":  {"file x\nfile .wh.x", "", false},
	"upper symlink over a file":    {"symlink x y", "file x", true},
	"lower file":                   {"", "file x", true},
	"lower device":                 {"", "char x 1/3", true},
	"upper directory":              {"dir x", "", false},
	"upper directory, whiteouts":   {"dir x\nwhite x/a\nfile x/.wh.b\nfile x/.wh..wh..opq", "", false},
	"merged directory":             {"dir x\nwhite x/old", "dir x\nfile x/old", true},
	"merged directory, marker":     {"dir x\nfile x/.wh.old", "dir x\nfile x/old", true},
	"merged directory, deep":       {"dir x\nwhite x/old\nopaque x/.wh.odd/a/b/c", "dir x\nfile x/old", true},
	"opaque directory":             {"opaque x", "dir x\nfile x/old", true},
	"opaque directory, closed":     {"opaque x 0000", "dir x\nfile x/old", true},
	"directory over a file":        {"dir x", "file x", true},
	"directory beside its marker":  {"dir x\nfile .wh.x", "dir x\nfile x/old", true},
	"lower directory":              {"", "dir x", true},
	"lower directory of whiteouts": {"", "dir x\nwhite x/old\nfile x/.wh.b", true},
}

// form returns the format of a whiteout of name.
func form(s *site, name string) whiteout.Format {
	if len(whiteout.Marker(name)) > s.whiteouts.Forms.NameMax {
		return s.whiteouts.Forms.Long
	}
	return s.whiteouts.Forms.Default
}

// A removed object does not show again, now or after a remount. A whiteout remains only if it hides
// something.
func TestRemove(t *testing.T) {
	allFormats(t, func(t *testing.T, format func(*site)) {
		for name, c := range removables {
			t.Run(name, func(t *testing.T) {
				s := newSite(t, c.upper+"\nfile other", c.lower)
				format(s)
				root := s.dir("").withNames()
				f := root.lookup("x")
				if f.Below != c.below {
					t.Errorf("below is %v", f.Below)
				}
				if err := root.remove("x"); err != nil {
					t.Fatal(err)
				}
				root.wantExact("removed")
				if f := root.lookup("x"); f.Exists() || (f.State == Whiteout) != c.below || f.Below != c.below {
					t.Errorf("x is %+v", f)
				}
				want := []string{"file other 0644 \"\""}
				switch {
				case strings.Contains(c.upper, ".wh.x"): // is left, and may be accompanied
					want = nil
				case c.below && form(s, "x").Devices:
					want = append(want, "white x")
				case c.below && s.whiteouts.InPlace("x"):
					want = append(want, `file x 0644 "" trusted.overlay.whiteout=""`)
				case c.below:
					want = append([]string{"file .wh.x 0000 \"\""}, want...)
				}
				if have := testkit.Snapshot(t, s.cfg.Upper); want != nil && have != strings.Join(want, "\n") {
					t.Errorf("the upper holds\n%s\nwant\n%s", have, strings.Join(want, "\n"))
				}
				s.wantView("removed", "file other")

				// and its name can be used again
				create(t, s, "x", &Object{Mode: unix.S_IFDIR | 0o755})
				s.wantView("made again", "file other\ndir x")
			})
		}
	})
}

// A whiteout of a lower object is one system call. A file is replaced and a directory exchanged,
// neither is removed first.
func TestRemovalIsOneStep(t *testing.T) {
	for name, want := range map[string][]string{
		"upper file":             {"unlinkat"},
		"lower file":             {"linkat"},
		"lower directory":        {"linkat"},
		"upper file over a file": {"linkat", "renameat"},
		"upper directory":        {"rmdir"},
		"opaque directory":       {"linkat", "renameat2", "fstatat", "rmdir"},
	} {
		c := removables[name]
		s := newSite(t, c.upper, c.lower+"\nfile first")
		root := s.dir("").withNames()
		must(t, root.remove("first")) // makes the device that all whiteouts are links of
		f, up := root.lookup("x"), root.upper()
		made := calls(func() {
			if f.IsDir() {
				must(t, s.RemoveDir(&root.Dir, up, "x", &f))
			} else {
				must(t, s.Remove(&root.Dir, up, "x", &f))
			}
		})
		if !slices.Equal(made, want) {
			t.Errorf("%s: %v, want %v", name, made, want)
		}
	}
}

// Removing copies nothing: neither the lower file's data nor its directory entry.
func TestRemovingALargeLowerFileReadsNothing(t *testing.T) {
	s := newSite(t, "", "file x\nsize x 1000000000000")
	root := s.dir("").withNames()
	for _, call := range calls(func() { must(t, root.remove("x")) }) {
		if call == "pread64" || call == "copy_file_range" || call == "openat" {
			t.Errorf("removing made a call %s", call)
		}
	}
}

// A name that leaves no room for ".wh." is hidden in another form if the upper supports one.
// Otherwise it stays.
func TestLongNamesInMarkerFormat(t *testing.T) {
	refusals := map[string][]string{"attribute": nil, "device": {"setxattr"}, "": {"setxattr", "mknodat"}}
	for form, refused := range refusals {
		for _, nameMax := range []int{NameMax, 143} { // the latter as eCryptfs
			if nameMax < NameMax && form == "" {
				continue // there the file system returns the error
			}
			for length := nameMax - 7; length <= nameMax; length++ {
				t.Run(fmt.Sprintf("%s/%d of %d", form, length, nameMax), func(t *testing.T) {
					s := newSite(t, "", "")
					sys.SetFault(func(op sys.Op) error {
						if slices.Contains(refused, op.Call) {
							return unix.EPERM
						}
						return nil
					})
					defer sys.SetFault(nil)
					var err error
					s.whiteouts, err = whiteout.NewMaker(s.work, nameMax, whiteout.Wanted{Markers: true})
					must(t, err)
					sys.SetFault(nil)
					fits := length+len(whiteout.MarkerPrefix) <= nameMax
					s.hideLongNames(length, fits, form)
				})
			}
		}
	}
}

// hideLongNames removes and renames objects with names of a length.
func (s *site) hideLongNames(length int, fits bool, form string) {
	t := s.t
	t.Helper()
	name := func(c string) string { return strings.Repeat(c, length) }
	testkit.Build(t, s.cfg.Lowers[0], fmt.Sprintf("file %s low\nfile %s low\ndir %s\nfile %s/f low\nfile %s low\nfile %s low",
		name("f"), name("c"), name("d"), name("e"), name("m"), name("k")))
	testkit.Build(t, s.cfg.Upper, fmt.Sprintf("file %s up\ndir %s\nwhite %s/f\nfile %s up", name("c"), name("e"), name("e"), name("m")))
	before := s.view()
	s.remount()
	root := s.dir("").withNames()
	errs := map[string]error{}
	for _, c := range []string{"f", "c", "d", "e"} {
		errs[c] = root.remove(name(c))
	}
	errs["m"] = s.Rename(root.end(name("m")), root.end("moved"))
	root.wantExact("changed")
	for c, err := range errs {
		if !fits && form == "" {
			if err != unix.ENAMETOOLONG {
				t.Errorf("%s: %v, want ENAMETOOLONG", c, err)
			}
			continue
		}
		must(t, err)
		path := filepath.Join(s.cfg.Upper, name(c))
		var st unix.Stat_t
		err := unix.Lstat(path, &st)
		switch {
		case fits:
			if _, err := os.Lstat(filepath.Join(s.cfg.Upper, whiteout.Marker(name(c)))); err != nil {
				t.Errorf("%s: no marker: %v", c, err)
			}
		case err != nil:
			t.Errorf("%s: no whiteout: %v", c, err)
		case form == "device":
			if st.Mode != unix.S_IFCHR || st.Rdev != 0 {
				t.Errorf("%s: mode %o", c, st.Mode)
			}
		default:
			if _, err := unix.Lgetxattr(path, "trusted.overlay.whiteout", nil); err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
				t.Errorf("%s: mode %o, %v", c, st.Mode, err)
			}
		}
	}
	if !fits && form == "" {
		if d := testkit.Diff(before, s.view()); d != "" {
			t.Errorf("the view differs:\n%s", d)
		}
		return
	}
	s.wantView("changed", fmt.Sprintf("file %s low\nfile moved up", name("k")))
}

// If the last step fails, the name shows what it showed before.
func TestFailedRemovalChangesNothing(t *testing.T) {
	for name, c := range removables {
		s := newSite(t, c.upper, c.lower)
		root := s.dir("").withNames()
		f, up := root.lookup("x"), root.upper()
		away := s.cfg.Upper + "2"
		must(t, os.Rename(s.cfg.Upper, away))
		must(t, os.RemoveAll(away)) // a directory that is gone takes neither names nor whiteouts
		var err error
		if f.IsDir() {
			err = s.RemoveDir(&root.Dir, up, "x", &f)
		} else {
			err = s.Remove(&root.Dir, up, "x", &f)
		}
		if err != unix.ENOENT {
			t.Errorf("%s: %v", name, err)
		}
		if f := root.table.find("x"); f == nil || f.absent() {
			t.Errorf("%s: the name table has lost it", name)
		}
		s.wantEmptyWork()
	}
}

// A directory of mode 0 that shows nothing is removed with the whiteouts and hidden objects in it.
func TestRemovedDirectoryIsSwept(t *testing.T) {
	s := newSite(t, "dir x\nwhite x/old\ndir x/.wh.sub/a/b\nfile x/.wh.sub/a/f", "dir x\nfile x/old")
	must(t, unix.Chmod(filepath.Join(s.cfg.Upper, "x/.wh.sub/a"), 0))
	root := s.dir("").withNames()
	must(t, root.remove("x"))
	s.wantEmptyWork()
	testkit.Want(t, "the upper", s.cfg.Upper, "white x")
}
