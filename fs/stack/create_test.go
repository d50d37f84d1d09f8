package stack

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/ondisk"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
	"github.com/fuse-overlay/fuse-overlay/internal/testkit"
	"github.com/fuse-overlay/fuse-overlay/whiteout"
)

// formats are the formats of an upper.
var formats = map[string]func(*site){
	"devices":            func(*site) {},
	"no RENAME_WHITEOUT": func(s *site) { s.whiteouts.Forms.Default.RenameWhiteout = false },
	"xattr whiteouts": func(s *site) {
		s.whiteouts.Forms.Default = whiteout.Format{Xattrs: s.xattrs, WhiteoutXattrs: true}
	},
	"devices, no xattrs": func(s *site) { s.takeXattrs() },
	"markers":            func(s *site) { s.whiteouts.Forms.Default = whiteout.Format{Xattrs: s.xattrs} },
	"markers, no xattrs": func(s *site) {
		s.takeXattrs()
		s.whiteouts.Forms.Default = whiteout.Format{}
	},
	"markers, no flags": func(s *site) {
		s.whiteouts.Forms.Default = whiteout.Format{Xattrs: s.xattrs}
		s.refuseRenameFlags()
	},
	// Every name is one whose marker would be too long.
	"long names, xattrs": func(s *site) {
		s.whiteouts.Forms = whiteout.Forms{
			Default: whiteout.Format{Xattrs: s.xattrs}, Long: whiteout.Format{Xattrs: s.xattrs, WhiteoutXattrs: true},
		}
	},
	"long names, devices": func(s *site) {
		s.takeXattrs()
		s.whiteouts.Forms = whiteout.Forms{Long: whiteout.Format{Devices: true, RenameWhiteout: true}}
	},
	"markers alone": func(s *site) {
		s.whiteouts.Forms.Default = whiteout.Format{Xattrs: s.xattrs}
		s.whiteouts.Forms.Long = s.whiteouts.Forms.Default
	},
	"nothing": func(s *site) { // as NFS
		s.takeXattrs()
		s.whiteouts.Forms.Default = whiteout.Format{}
		s.refuseRenameFlags()
	},
}

// takeXattrs makes the upper one without xattrs.
func (s *site) takeXattrs() {
	s.xattrs, s.whiteouts.Forms.Default.Xattrs = ondisk.NoXattrs, ondisk.NoXattrs
}

// refuseRenameFlags makes renames with flags fail until the end of the test.
func (s *site) refuseRenameFlags() {
	s.noFlags = true
	sys.SetFault(func(op sys.Op) error {
		if op.Call == "renameat2" {
			return unix.EINVAL
		}
		return nil
	})
	s.t.Cleanup(func() { sys.SetFault(nil) })
}

// allFormats runs f with stacks that write in each format.
func allFormats(t *testing.T, f func(t *testing.T, format func(*site))) {
	for name, format := range formats {
		t.Run(name, func(t *testing.T) { f(t, format) })
	}
}

// white is the line of a whiteout of path, as a marker or a device.
func white(path string, marker bool) string {
	if marker {
		return "file " + filepath.Join(filepath.Dir(path), ".wh."+filepath.Base(path)) + "\n"
	}
	return "white " + path + "\n"
}

// newObjects are one of each kind, with their lines in a table.
var newObjects = map[string]Object{
	"file %s 0640":      {Mode: unix.S_IFREG | 0o640},
	"dir %s 0750":       {Mode: unix.S_IFDIR | 0o750},
	"symlink %s target": {Mode: unix.S_IFLNK | 0o777, Target: "target"},
	"fifo %s 0640":      {Mode: unix.S_IFIFO | 0o640},
	"sock %s 0640":      {Mode: unix.S_IFSOCK | 0o640},
	"char %s 1/3 0640":  {Mode: unix.S_IFCHR | 0o640, Rdev: unix.Mkdev(1, 3)},
	"block %s 8/1 0640": {Mode: unix.S_IFBLK | 0o640, Rdev: unix.Mkdev(8, 1)},
}

// An object of each kind is made over nothing, and over whiteouts of every kind in both forms, in
// every format.
func TestCreate(t *testing.T) {
	const lower = "file file \"old\"\ndir dir\nfile dir/old"
	allFormats(t, func(t *testing.T, format func(*site)) {
		for line, o := range newObjects {
			for _, marker := range []bool{false, true} {
				for _, uid := range []uint32{0, 1000} {
					upper := white("file", marker) + white("dir", marker) + white("nothing", marker)
					s := newSite(t, upper, lower)
					format(s)
					root := s.dir("")
					want := ""
					for _, name := range []string{"file", "dir", "nothing", "new"} {
						f := root.lookup(name)
						o.UID = uid
						file, err := s.Create(&root.Dir, root.upper(), name, &f, &o)
						if err != nil {
							t.Fatalf("%s over marker %v: %v", fmt.Sprintf(line, name), marker, err)
						}
						if file != nil {
							_, err := file.Pwrite([]byte("data"), 0)
							must(t, err)
							file.Close()
							must(t, os.Truncate(filepath.Join(s.cfg.Upper, name), 0))
						}
						want += fmt.Sprintf(line+"\nown %[1]s %[2]d 0\n", name, uid)
						root.wantExact("after " + fmt.Sprintf(line, name))
					}
					s.wantView("made", want)
					if left := testkit.Snapshot(t, s.cfg.Upper); marker && findLine(left, ".wh.") {
						if s.xattrs != ondisk.NoXattrs {
							t.Errorf("a marker is left:\n%s", left)
						}
					}
				}
			}
		}
	})
}

// findLine reports whether the second word of a line begins with prefix.
func findLine(snapshot, prefix string) bool {
	words, err := testkit.Words(snapshot)
	if err != nil {
		return false
	}
	for _, w := range words {
		if len(w) >= len(prefix) && w[:len(prefix)] == prefix {
			return true
		}
	}
	return false
}

// A directory that is made over one of a lower is opaque in the upper.
func TestCreatedDirectoryIsOpaqueWhereOneLiesBelow(t *testing.T) {
	s := newSite(t, white("d", false), "dir d\nfile d/old\nfile e")
	create(t, s, "d", &Object{Mode: unix.S_IFDIR | 0o700})
	create(t, s, "new", &Object{Mode: unix.S_IFDIR | 0o700})
	testkit.Want(t, "the upper", s.cfg.Upper, "opaque d 0700\ndir new 0700")

	s = newSite(t, white("d", true), "dir d\nfile d/old")
	formats["markers, no xattrs"](s)
	create(t, s, "d", &Object{Mode: unix.S_IFDIR | 0o700})
	testkit.Want(t, "the upper without xattrs", s.cfg.Upper, "dir d 0700\nfile d/.wh..wh..opq")
}

// In place, an object costs one system call besides the first look at the default ACL.
func TestCreateInPlaceIsOneCall(t *testing.T) {
	s := newSite(t, "")
	root := s.dir("").withNames()
	for i, o := range []Object{{Mode: unix.S_IFIFO | 0o600}, {Mode: unix.S_IFDIR | 0o700}, {Mode: unix.S_IFREG | 0o600}} {
		made := calls(func() {
			f := root.lookup(fmt.Sprint(i))
			file, err := s.Create(&root.Dir, root.upper(), fmt.Sprint(i), &f, &o)
			must(t, err)
			if file != nil {
				file.Close()
			}
		})
		if i > 0 && len(made) != 1 {
			t.Errorf("calls: %v", made)
		}
	}
}

// What is staged and cannot be published is removed.
func TestFailedCreateLeavesNothing(t *testing.T) {
	s := newSite(t, white("f", false)+white("d", false), "file f\ndir d")
	for _, o := range []Object{{Mode: unix.S_IFREG}, {Mode: unix.S_IFDIR}} {
		root := s.dir("")
		f := root.lookup("none") // and made over a whiteout that is not there
		f.State = Whiteout
		up := root.upper()
		must(t, os.RemoveAll(s.cfg.Upper))
		if _, err := s.Create(&root.Dir, up, "none", &f, &o); err != unix.ENOENT {
			t.Errorf("in a removed directory: %v", err)
		}
		s.wantEmptyWork()
		must(t, os.Mkdir(s.cfg.Upper, 0o755))
		s.remount()
	}
}

func TestLink(t *testing.T) {
	const lower = "file file\ndir dir\nfile dir/old"
	allFormats(t, func(t *testing.T, format func(*site)) {
		for _, marker := range []bool{false, true} {
			s := newSite(t, "file src \"data\"\n"+white("file", marker)+white("dir", marker)+white("nothing", marker), lower)
			format(s)
			root := s.dir("").withNames()
			want := "file src \"data\"\n"
			for _, name := range []string{"file", "dir", "nothing", "new"} {
				f := root.lookup(name)
				if err := s.Link(&root.Dir, root.upper(), name, &f, root.upper().At("src"), unix.S_IFREG); err != nil {
					t.Fatalf("link to %s: %v", name, err)
				}
				want += fmt.Sprintf("file %s \"data\"\n", name)
				root.wantExact("after a link to " + name)
			}
			var st unix.Stat_t
			must(t, unix.Stat(filepath.Join(s.cfg.Upper, "src"), &st))
			if st.Nlink != 5 {
				t.Errorf("%d links", st.Nlink)
			}
			s.wantView("linked", want)
		}
	})
}

func TestFailedLinkLeavesNothing(t *testing.T) {
	s := newSite(t, "file src\nwhite f", "file f")
	root := s.dir("").withNames()
	f := root.lookup("f")
	if err := s.Link(&root.Dir, root.upper(), "f", &f, root.upper().At("none"), unix.S_IFREG); err != unix.ENOENT {
		t.Errorf("link of nothing: %v", err)
	}
	up := root.upper()
	must(t, os.Rename(s.cfg.Upper, s.cfg.Upper+"2"))
	must(t, os.RemoveAll(s.cfg.Upper+"2/f"))
	must(t, os.Mkdir(s.cfg.Upper+"2/f", 0o755)) // a directory cannot be replaced
	if err := s.Link(&root.Dir, up, "f", &f, up.At("src"), unix.S_IFREG); err != unix.EISDIR {
		t.Errorf("link over a directory: %v", err)
	}
	s.wantEmptyWork()
}
