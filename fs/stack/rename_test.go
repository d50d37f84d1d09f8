package stack

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/sys"
	"github.com/fuse-overlay/fuse-overlay/internal/testkit"
)

// end returns one end of a rename.
func (m *merged) end(name string) *End {
	m.s.t.Helper()
	return &End{Dir: &m.Dir, Up: m.upper(), Name: name, Found: m.lookup(name)}
}

// movable is an object to move: tables of the upper and the lower, and of the result, with %[1]s
// for the path.
type movable struct {
	upper, lower, shows string
	isDir               bool
}

var movables = map[string]movable{
	"file":                  {"file %[1]s \"moved\"", "", "file %[1]s \"moved\"", false},
	"file over a file":      {"file %[1]s \"moved\"", "file %[1]s \"old\"", "file %[1]s \"moved\"", false},
	"file over a directory": {"file %[1]s \"moved\"", "dir %[1]s\nfile %[1]s/old", "file %[1]s \"moved\"", false},
	"symlink":               {"symlink %[1]s target", "file %[1]s", "symlink %[1]s target", false},
	"directory":             {"dir %[1]s\nfile %[1]s/in", "", "file %[1]s/in", true},
	"opaque directory":      {"opaque %[1]s\nfile %[1]s/in", "dir %[1]s\nfile %[1]s/old", "file %[1]s/in", true},
	"directory over a file": {"dir %[1]s\nfile %[1]s/in", "file %[1]s", "file %[1]s/in", true},
}

// target is what the new name may have. A directory replaces nothing, or an empty directory.
type target struct {
	upper, lower string
	file, dir    bool // may be replaced by one
	replaces     bool // an object shows
}

var targets = map[string]target{
	"nothing":                 {"", "", true, true, false},
	"a whiteout of nothing":   {"white %[1]s", "", true, true, false},
	"a whiteout of a file":    {"white %[1]s", "file %[1]s", true, true, false},
	"a whiteout of a dir":     {"white %[1]s", "dir %[1]s\nfile %[1]s/old", true, true, false},
	"a whiteout xattr":        {"xattr %[3]s trusted.overlay.opaque x\nfile %[1]s\nxattr %[1]s trusted.overlay.whiteout y", "file %[1]s", true, true, false},
	"a marker of nothing":     {"file %[2]s", "", true, true, false},
	"a marker of a file":      {"file %[2]s", "file %[1]s", true, true, false},
	"a marker of a dir":       {"file %[2]s", "dir %[1]s\nfile %[1]s/old", true, true, false},
	"a file":                  {"file %[1]s \"victim\"", "", true, false, true},
	"a file over a file":      {"file %[1]s \"victim\"", "file %[1]s", true, false, true},
	"a file and its marker":   {"file %[1]s \"victim\"\nfile %[2]s", "file %[1]s", true, false, true},
	"an upper dir":            {"dir %[1]s 0700\nown %[1]s 5 6", "", false, true, true},
	"a dir of whiteouts":      {"dir %[1]s 0700\nown %[1]s 5 6\nwhite %[1]s/old", "dir %[1]s\nfile %[1]s/old", false, true, true},
	"a dir of markers":        {"dir %[1]s\nfile %[1]s/.wh.old", "dir %[1]s\nfile %[1]s/old", false, true, true},
	"an opaque dir":           {"opaque %[1]s", "dir %[1]s\nfile %[1]s/old", false, true, true},
	"a dir opaque by marker":  {"dir %[1]s\nfile %[1]s/.wh..wh..opq", "dir %[1]s\nfile %[1]s/old", false, true, true},
	"a lower file":            {"", "file %[1]s \"victim\"", true, false, true},
	"a lower dir":             {"", "dir %[1]s", false, true, true},
	"a lower dir, whiteouts":  {"", "dir %[1]s\nwhite %[1]s/x", false, true, true},
	"a dir beside its marker": {"dir %[1]s\nfile %[2]s", "dir %[1]s\nfile %[1]s/old", false, true, true},
}

// fill puts a path, the name of its marker and its directory into a table.
func fill(table, path string) string {
	marker := filepath.Join(filepath.Dir(path), ".wh."+filepath.Base(path))
	return strings.NewReplacer("%[1]s", path, "%[2]s", marker, "%[3]s", filepath.Dir(path)).Replace(table) + "\n"
}

func TestRename(t *testing.T) {
	allFormats(t, func(t *testing.T, format func(*site)) {
		for what, from := range movables {
			for where, to := range targets {
				if from.isDir && !to.dir || !from.isDir && !to.file {
					continue
				}
				for _, toPath := range []string{"q/to", "p/to"} {
					if toPath[0] == 'p' && where != "nothing" {
						continue // with the same directory at both ends there is no more to be seen
					}
					t.Run(what+" to "+where+" "+toPath, func(t *testing.T) {
						s := newSite(t, "dir p\ndir q\n"+fill(from.upper, "p/from")+fill(to.upper, toPath),
							"dir p\ndir q\n"+fill(from.lower, "p/from")+fill(to.lower, toPath))
						format(s)
						renameOne(s, from, toPath)
					})
				}
			}
		}
	})
}

// refuses reports whether the rename fails. A directory whose old name needs a whiteout cannot
// replace another one in one step without RENAME_WHITEOUT. A format of markers alone cannot move a
// whiteout in xattr form out of the way of a directory.
func (s *site) refuses(src, dst *End) bool {
	if !src.Found.IsDir() {
		return false
	}
	if !s.whiteouts.InPlace(src.Name) {
		value, err := dst.Up.Ref().GetXattr("trusted.overlay.opaque")
		return err == nil && !s.whiteouts.Forms.Long.InPlace() && string(value) == "x" && dst.Found.State == Whiteout && !dst.Found.Marker
	}
	return src.Found.Below && !form(s, src.Name).RenameWhiteout && dst.Found.Exists()
}

func renameOne(s *site, from movable, toPath string) {
	s.t.Helper()
	p, q := s.dir("p"), s.dir("q")
	if toPath[0] == 'p' {
		q = p
	}
	src, dst := p.end("from"), q.end("to")
	err := s.Rename(src, dst)
	if s.refuses(src, dst) {
		if err != unix.EXDEV {
			s.t.Errorf("error %v, want EXDEV", err)
		}
		return
	}
	if err != nil {
		s.t.Fatal(err)
	}
	p.wantExact("renamed")
	q.wantExact("renamed")
	if left := p.lookup("from"); left.Exists() || (left.State == Whiteout) != src.Found.Below {
		s.t.Errorf("the old name is %+v", left)
	}
	s.wantView("renamed", "dir p\ndir q\n"+fill(from.shows, toPath))
	create(s.t, s, "p/from", &Object{Mode: unix.S_IFDIR | 0o755}) // the old name is free
	s.wantView("used again", "dir p\ndir q\ndir p/from\n"+fill(from.shows, toPath))
	if err := s.dir(toPath[:1]).remove("to"); err != nil && !from.isDir {
		s.t.Error(err)
	}
}

func TestExchange(t *testing.T) {
	allFormats(t, func(t *testing.T, format func(*site)) {
		for first, a := range movables {
			for second, b := range movables {
				for _, bPath := range []string{"q/b", "p/b"} {
					if bPath[0] == 'p' && first != second {
						continue // as in TestRename
					}
					t.Run(first+" and "+second+" "+bPath, func(t *testing.T) {
						s := newSite(t, "dir p\ndir q\n"+fill(a.upper, "p/a")+fill(strings.ReplaceAll(b.upper, "moved", "other"), bPath),
							"dir p\ndir q\n"+fill(a.lower, "p/a")+fill(b.lower, bPath))
						format(s)
						p, q := s.dir("p"), s.dir("q")
						if bPath[0] == 'p' {
							q = p
						}
						err := s.Exchange(p.end("a"), q.end("b"))
						if s.noFlags && err == unix.EINVAL {
							return // the error of the upper's file system
						}
						must(t, err)
						p.wantExact("exchanged")
						q.wantExact("exchanged")
						s.wantView("exchanged", "dir p\ndir q\n"+fill(strings.ReplaceAll(b.shows, "moved", "other"), "p/a")+fill(a.shows, bPath))
					})
				}
			}
		}
	})
}

// A rename to a free name is one system call, which also makes the whiteout.
func TestRenameIsOneCall(t *testing.T) {
	for what, want := range map[string][]string{
		"file":             {"renameat"},
		"file over a file": {"renameat2"},
		"directory":        {"renameat"},
		"opaque directory": {"renameat2"},
	} {
		m := movables[what]
		s := newSite(t, fill(m.upper, "from"), fill(m.lower, "from"))
		root := s.dir("").withNames()
		from, to := root.end("from"), root.end("to")
		if made := calls(func() { must(t, s.Rename(from, to)) }); !slices.Equal(made, want) {
			t.Errorf("%s: %v", what, made)
		}
	}
}

// A directory is marked opaque before it comes to a name that would merge it.
func TestDirectoryIsCutOffBeforeItIsMoved(t *testing.T) {
	s := newSite(t, "dir from\nwhite to", "dir to\nfile to/old")
	root := s.dir("").withNames()
	from, to := root.end("from"), root.end("to")
	made := calls(func() { must(t, s.Rename(from, to)) })
	mark, move := slices.Index(made, "setxattr"), slices.Index(made, "renameat2")
	if mark < 0 || move < 0 || mark > move {
		t.Errorf("calls: %v", made)
	}
	testkit.Want(t, "the upper", s.cfg.Upper, "opaque to")
}

// A replaced directory that is full of whiteouts shows the same owner, mode and xattrs until the
// rename.
func TestReplacedDirectoryLooksTheSameUntilTheRename(t *testing.T) {
	s := newSite(t, `
		dir from
		dir to 2751
		own to 5 6
		xattr to user.note "kept"
		white to/old
	`, "dir to\nfile to/old")
	must(t, unix.Chmod(filepath.Join(s.cfg.Upper, "to"), 0o2751))
	before := s.view()
	root := s.dir("").withNames()
	looked := false
	sys.SetFault(func(op sys.Op) error {
		if looked || op.Call != "renameat" { // the rename of from
			return nil
		}
		looked = true
		if d := testkit.Diff(before, s.view()); d != "" {
			t.Errorf("the view has changed:\n%s", d)
		}
		if left, err := os.ReadDir(filepath.Join(s.cfg.Upper, "to")); err != nil || len(left) != 0 {
			t.Errorf("still holds %v, %v", left, err)
		}
		return nil
	})
	defer sys.SetFault(nil)
	must(t, s.Rename(root.end("from"), root.end("to")))
	if !looked {
		t.Error("from was not renamed")
	}
}

// If the rename fails, both names show what they showed before.
func TestFailedRenameChangesNothing(t *testing.T) {
	for what, from := range movables {
		for where, to := range targets {
			if from.isDir && !to.dir || !from.isDir && !to.file {
				continue
			}
			s := newSite(t, "dir p\ndir q\n"+fill(from.upper, "p/from")+fill(to.upper, "q/to"),
				"dir p\ndir q\n"+fill(from.lower, "p/from")+fill(to.lower, "q/to"))
			p, q := s.dir("p"), s.dir("q")
			src, dst := p.end("from"), q.end("to")
			before := s.view()
			src.Name = "elsewhere" // is not there
			if err := s.Rename(src, dst); err != unix.ENOENT {
				t.Fatalf("%s to %s: %v", what, where, err)
			}
			p.wantExact(what + " to " + where)
			q.wantExact(what + " to " + where)
			if d := testkit.Diff(before, s.view()); d != "" {
				t.Errorf("%s to %s changed\n%s", what, where, d)
			}
			s.wantEmptyWork()
		}
	}
}
