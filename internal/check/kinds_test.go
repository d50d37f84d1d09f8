package check

import (
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/ondisk"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
	"github.com/fuse-overlay/fuse-overlay/internal/testkit"
)

// damage is a way to damage an overlay, and what is found then.
type damage struct {
	name   string
	upper  string
	lowers []string
	spoil  func(s *site)
	want   string // lines KIND|LAYER:PATH
	// after is what is found after all repairs have been made.
	after string
}

const (
	opaque   = trusted + "opaque "
	redirect = trusted + "redirect "
	metacopy = trusted + "metacopy "
)

// damages has at least one case of each kind.
var damages = []damage{
	{name: "whiteout of nothing", upper: "dir d\nwhite d/gone", lowers: []string{"file d/other"}, want: "whiteout that hides nothing|upper:d/gone"},
	{name: "marker of nothing", upper: "file d/.wh.gone", lowers: []string{""}, want: "orphan whiteout|upper:d/.wh.gone"},
	{name: "whiteout by an xattr of nothing", upper: "dir d\nxattr d " + opaque + "x\nfile d/w\nxattr d/w " + trusted + "whiteout y",
		lowers: []string{"file d"}, want: "orphan whiteout|upper:d/w"},
	{name: "whiteout in an opaque directory", upper: "opaque d\nwhite d/a", lowers: []string{"file d/a"}, want: "orphan whiteout|upper:d/a"},
	{name: "whiteout in a new directory", upper: "dir new\nwhite new/a", lowers: []string{""}, want: "orphan whiteout|upper:new/a"},
	{name: "whiteouts that hide", upper: "white a\nwhite d\nfile e/.wh.f\ndir m\nxattr m " + redirect + "/old\nwhite m/x\nwhite old",
		lowers: []string{"file a", "file d/x\nfile e/f\nfile old/x"}},
	{name: "markers of AUFS", upper: "file .wh..wh.plnk\nfile .wh.", lowers: []string{""},
		want: "foreign marker|upper:.wh..wh.plnk\nforeign marker|upper:.wh."},
	{name: "data under a marker", upper: "file .wh.a \"data\"\nfile .wh.b/in\nfile .wh..wh..opq \"data\"", lowers: []string{"file a"},
		want:  "data under a marker|upper:.wh.a\ndata under a marker|upper:.wh.b\ndata under a marker|upper:.wh..wh..opq",
		after: "data under a marker|upper:.wh.a\ndata under a marker|upper:.wh.b\ndata under a marker|upper:.wh..wh..opq"},
	{name: "whiteout mark on data", upper: "dir d\nxattr d " + opaque + "x\nfile d/w \"data\"\nxattr d/w " + trusted + "whiteout y",
		lowers: []string{"file d/w"}, want: "whiteout mark on data|upper:d/w"},
	{name: "whiteout mark in a plain directory", upper: "file w\nxattr w " + trusted + "whiteout y", lowers: []string{"file w"},
		want: "ignored whiteout mark|upper:w", after: "ignored whiteout mark|upper:w"},
	{name: "opaque with another value", upper: "dir d\nxattr d " + opaque + "1", lowers: []string{"file d/a"}, want: "invalid opaque mark|upper:d"},
	{name: "opaque file", upper: "file f\nxattr f " + opaque + "y", lowers: []string{""}, want: "opaque mark on a file|upper:f"},
	{name: "impure file", upper: "file f\nxattr f " + trusted + "impure y", lowers: []string{""}, want: "impure mark on a file|upper:f"},
	{name: "copy in a pure directory", upper: "file d/f", lowers: []string{"file d/f"}, spoil: func(s *site) {
		s.xattr("upper/d/f", trusted+"origin", s.handle("lower1/d/f").Encode())
	}, want: "missing impure mark|upper:d"},
	{name: "redirect out of the layer", upper: "dir d\nxattr d " + redirect + "/a/../../etc", lowers: []string{"dir a"}, want: "invalid redirect|upper:d",
		after: "opaque mark that hides nothing|upper:d"},
	{name: "redirect of a metacopy out of the layer",
		upper:  "file f\nxattr f " + metacopy + "\"\"\nxattr f " + redirect + "a//b",
		lowers: []string{""}, want: "invalid redirect|upper:f", after: "invalid redirect|upper:f"},
	{name: "redirects to nothing", upper: "dir a\nxattr a " + redirect + "/none\ndir b\nxattr b " + redirect + "none\ndir c\nxattr c " +
		redirect + "/file\nopaque o\ndir o/x\nxattr o/x " + redirect + "y", lowers: []string{"file file\ndir o/y"},
		want:  "broken redirect|upper:a\nbroken redirect|upper:b\nbroken redirect|upper:c\nbroken redirect|upper:o/x",
		after: "broken redirect|upper:a\nbroken redirect|upper:b\nbroken redirect|upper:c\nbroken redirect|upper:o/x"},
	{name: "redirect of a lower to nothing", lowers: []string{"dir a\nxattr a " + redirect + "/none", ""},
		want: "broken redirect|lower1:a", after: "broken redirect|lower1:a"},
	{name: "redirect that any user may have written", upper: "dir d\nxattr d user.overlay.redirect /a", lowers: []string{"dir a"},
		want: "untrusted redirect|upper:d", after: "untrusted redirect|upper:d"},
	{name: "two redirects", upper: "dir a\nxattr a " + redirect + "/old\ndir b\nxattr b " + redirect + "old\nwhite old", lowers: []string{"dir old"},
		want: "two redirects to one directory|upper:b", after: "two redirects to one directory|upper:b"},
	{name: "redirect of a fifo", upper: "fifo f\nxattr f " + redirect + "/a", lowers: []string{"file a"}, want: "redirect on a special file|upper:f"},
	{name: "metacopy of a later version", upper: "file f\nxattr f " + metacopy + "\"\\x07\\x04\\x00\\x00\"", lowers: []string{"file f"},
		want: "invalid metacopy|upper:f", after: "invalid metacopy|upper:f"},
	{name: "metacopies without data", upper: "file f\nsize f 3\nxattr f " + metacopy + "\"\"\nfile g\nsize g 3\nxattr g " + metacopy +
		"\"\"\nxattr g " + redirect + "/none", lowers: []string{"file other"},
		want:  "metacopy without data|upper:f\nmetacopy without data|upper:g",
		after: "metacopy without data|upper:f\nmetacopy without data|upper:g"},
	{name: "metacopy of a lower without data", lowers: []string{"file f\nsize f 3\nxattr f " + metacopy + "\"\""},
		want: "metacopy without data|lower1:f", after: "metacopy without data|lower1:f"},
	{name: "metacopy of less data", upper: "file f\nsize f 9\nxattr f " + metacopy + "\"\"", lowers: []string{"file f \"abc\""},
		want: "metacopy longer than its data|upper:f", after: "metacopy longer than its data|upper:f"},
	{name: "metacopy of other data", upper: "file f\nsize f 3", lowers: []string{"file f \"abc\""}, spoil: func(s *site) {
		_, value := ondisk.Trusted.MetacopyXattr(sys.NewDigest(1, make([]byte, 32)))
		s.xattr("upper/f", trusted+"metacopy", value)
	}, want: "metacopy of other data|upper:f", after: "metacopy of other data|upper:f"},
	{name: "metacopy that any user may have written", upper: "file f\nsize f 3\nxattr f user.overlay.metacopy \"\"", lowers: []string{"file f \"abc\""},
		want: "untrusted metacopy|upper:f", after: "untrusted metacopy|upper:f"},
	{name: "metacopy mark of a directory", upper: "dir d\nxattr d " + metacopy + "\"\"", lowers: []string{""}, want: "metacopy mark on no file|upper:d"},
	{name: "origin that is no handle", upper: "file f\nxattr f " + trusted + "origin what", lowers: []string{"file f"}, want: "invalid origin|upper:f"},
	{name: "origin that is gone", upper: "file f", lowers: []string{"file f"}, spoil: func(s *site) {
		s.copyOf("upper/f", "lower1/f")
		must(s.t, os.Remove(s.path("lower1/f")))
	}, want: "broken origin|upper:f"},
	{name: "origin on another file system", upper: "file f", lowers: []string{"file f"}, spoil: func(s *site) {
		h := s.handle("lower1/f")
		h.UUID = [16]byte{1, 2, 3}
		s.copyOf("upper/f", "lower1/f")
		s.xattr("upper/f", trusted+"origin", h.Encode())
	}, want: "foreign origin|upper:f"},
	{name: "origin of another type", upper: "file f", lowers: []string{"dir f"}, spoil: func(s *site) { s.copyOf("upper/f", "lower1/f") },
		want: "origin of another type|upper:f"},
	{name: "two copies", upper: "file f\nfile g", lowers: []string{"file f"}, spoil: func(s *site) {
		s.copyOf("upper/f", "lower1/f")
		s.copyOf("upper/g", "lower1/f")
	}, want: "two copies of one origin|upper:g"},
	{name: "links of a copy", upper: "file f\nlink g f", lowers: []string{"file f"}, spoil: func(s *site) { s.copyOf("upper/f", "lower1/f") }},
	{name: "short uuid", lowers: []string{""}, spoil: func(s *site) { s.xattr("upper", trusted+"uuid", []byte("x")) }, want: "invalid uuid|upper:."},
	{name: "uuid of a directory", upper: "dir d\nxattr d " + trusted + "uuid 0123456789abcdef", lowers: []string{""}, want: "uuid below the root|upper:d"},
	{name: "upper mark", upper: "dir d\nxattr d " + trusted + "upper x", lowers: []string{""}, want: "upper mark outside the index|upper:d"},
	{name: "unknown marks", upper: "dir d\nxattr d " + trusted + "none x\nfile f\nxattr f user.overlay.none x", lowers: []string{""},
		want: "unknown mark|upper:d\nunknown mark|upper:f", after: "unknown mark|upper:d\nunknown mark|upper:f"},
	{name: "marks of an overlay in the overlay", upper: "dir d\nxattr d " + trusted + "overlay.opaque y\nfile f\nxattr f user.overlay.overlay.x y",
		lowers: []string{""}},
	{name: "link count that is no number", upper: "file f\nxattr f " + trusted + "nlink many", lowers: []string{""},
		want: "invalid link count|upper:f", after: "invalid link count|upper:f"},
	{name: "protattr with another letter", upper: "file f\nxattr f " + trusted + "protattr iz", lowers: []string{""}, want: "invalid protattr|upper:f"},
	{name: "flags of inodes", upper: "file f\nfile g", lowers: []string{""}, spoil: func(s *site) {
		testkit.Run(s.t, "chattr", "+i", s.path("upper/f"))
		testkit.Run(s.t, "chattr", "+a", s.path("upper/g"))
		s.t.Cleanup(func() { testkit.Run(s.t, "chattr", "-ia", s.path("upper/f"), s.path("upper/g")) })
	}, want: "immutable inode|upper:f\nimmutable inode|upper:g", after: "immutable inode|upper:f\nimmutable inode|upper:g"},
	{name: "owner that makes no sense", upper: "file f\nxattr f " + ondisk.OverridePrivileged + " x\ndir d\nxattr d " + ondisk.OverridePrivileged + " 0:0",
		lowers: []string{""}, spoil: func(s *site) { s.xattr("upper", ondisk.OverridePrivileged, []byte("0:0:0755:dir")) },
		want: "invalid owner mark|upper:d\ninvalid owner mark|upper:f", after: "invalid owner mark|upper:d\ninvalid owner mark|upper:f"},
	{name: "upper that is a lower", lowers: []string{""}, spoil: func(s *site) { s.Lowers = append(s.Lowers, s.Upper) },
		want: "directory used twice|upper:.", after: "directory used twice|upper:."},
	{name: "work that is a lower", lowers: []string{""}, spoil: func(s *site) { s.Lowers = append(s.Lowers, s.Work) },
		want: "directory used twice|work:.", after: "directory used twice|work:."},
	{name: "work and lower in the upper", upper: "dir work\nfile low/f", lowers: []string{""}, spoil: func(s *site) {
		s.Work, s.Lowers = s.path("upper/work"), append(s.Lowers, s.path("upper/low"))
	}, want: "directory inside the upper|upper:low\ndirectory inside the upper|upper:work",
		after: "directory inside the upper|upper:low\ndirectory inside the upper|upper:work"},
	{name: "other things in work", lowers: []string{""}, spoil: func(s *site) { s.build("file work/mine \"data\"\nfile work/index") },
		want:  "foreign entry in work|work:mine\nno directory in work|work:index",
		after: "foreign entry in work|work:mine\nno directory in work|work:index"},
	{name: "work of another user", lowers: []string{""}, spoil: func(s *site) { s.build("dir work/work 0700\nown work/work 1234 1234") },
		want: "wrong owner of work|work:work"},
	{name: "work that all can write", lowers: []string{""}, spoil: func(s *site) { s.build("dir work/work 0777\ndir work/index 0770") },
		want: "wrong mode of work|work:work\nwrong mode of work|work:index"},
	{name: "volatile", lowers: []string{""}, spoil: func(s *site) { s.build("dir work/work 0700\nfile work/work/incompat/volatile/dirty") },
		want: "volatile mark|work:work/incompat", after: "volatile mark|work:work/incompat"},
	{name: "leftovers of a volatile mount", lowers: []string{""}, spoil: func(s *site) {
		s.build("dir work/work 0700\nfile work/work/incompat/volatile/dirty\nfile work/work/#1 \"half\"")
	}, want: "volatile mark|work:work/incompat\nleftover in work|work:work/#1", after: "volatile mark|work:work/incompat\nleftover in work|work:work/#1"},
	{name: "a feature of the future", lowers: []string{""}, spoil: func(s *site) { s.build("dir work/work 0700\ndir work/work/incompat/future") },
		want: "unknown feature of work|work:work/incompat/future", after: "unknown feature of work|work:work/incompat/future"},
	{name: "leftovers", lowers: []string{""}, spoil: func(s *site) {
		s.build("dir work/work 0700\nfile work/work/#1 \"half\"\nfile work/work/#2/a/b\ndir work/index 0700\nfile work/index/#3")
	}, want: "leftover in work|work:work/#1\nleftover in work|work:work/#2\nleftover in work|work:index/#3"},
	{name: "index of another lower", lowers: []string{"file f", "file f"}, spoil: func(s *site) {
		s.build("dir work/index 0700")
		s.xattr("upper", trusted+"origin", s.handle("lower2").Encode())
	}, want: "index of another lower|work:index\nroot of another lower|upper:.", after: "index of another lower|work:index\nroot of another lower|upper:."},
	{name: "index of another upper", lowers: []string{""}, spoil: func(s *site) {
		s.build("dir work/index 0700")
		h := s.handle("lower1")
		h.Upper = true
		s.xattr("work/index", trusted+"upper", h.Encode())
	}, want: "index of another upper|work:index", after: "index of another upper|work:index"},
	{name: "index of these layers", lowers: []string{"file f\nlink g f"}, spoil: func(s *site) {
		s.indexed("lower1/f", "upper/f")
		must(s.t, os.Chmod(s.path("work/index"), 0o700))
		h := s.handle("upper")
		h.Upper = true
		s.xattr("work/index", trusted+"upper", h.Encode())
		s.xattr("upper", trusted+"origin", s.handle("lower1").Encode())
	}},
	{name: "other things in the index", lowers: []string{""}, spoil: func(s *site) { s.build("file work/index/mine") },
		want: "unknown index entry|work:index/mine", after: "unknown index entry|work:index/mine"},
	{name: "index entry without origin", lowers: []string{"file f\nlink g f"}, spoil: func(s *site) {
		must(s.t, unix.Lremovexattr(s.path(s.indexed("lower1/f", "upper/f")), trusted+"origin"))
	}, want: "index entry without origin|work:index/ENTRY"},
	{name: "index entry of another origin", lowers: []string{"file f\nlink g f\nfile other"}, spoil: func(s *site) {
		s.xattr(s.indexed("lower1/f", "upper/f"), trusted+"origin", s.handle("lower1/other").Encode())
	}, want: "index entry of another origin|work:index/ENTRY", after: "link count without index|upper:f"},
	{name: "index entry of another origin without names", lowers: []string{"file f\nlink g f\nfile other"}, spoil: func(s *site) {
		s.xattr(s.indexed("lower1/f", ""), trusted+"origin", s.handle("lower1/other").Encode())
	}, want: "index entry of another origin|work:index/ENTRY", after: "index entry of another origin|work:index/ENTRY"},
	{name: "index entry of nothing", lowers: []string{"file f\nlink g f"}, spoil: func(s *site) {
		s.indexed("lower1/f", "")
		must(s.t, os.Remove(s.path("lower1/f")))
		must(s.t, os.Remove(s.path("lower1/g")))
	}, want: "index entry of nothing|work:index/ENTRY", after: "index entry of nothing|work:index/ENTRY"},
	{name: "index entry of another type", lowers: []string{"fifo f\nlink g f"}, spoil: func(s *site) { s.indexed("lower1/f", "") },
		want: "index entry of another type|work:index/ENTRY", after: "index entry of another type|work:index/ENTRY"},
	{name: "index entry of another file system", lowers: []string{"file f\nlink g f"}, spoil: func(s *site) {
		h := s.handle("lower1/f")
		h.UUID = [16]byte{1, 2, 3}
		entry := "work/index/" + h.IndexName()
		s.build("file " + entry)
		s.xattr(entry, trusted+"origin", h.Encode())
	}, want: "index entry of another file system|work:index/ENTRY", after: "index entry of another file system|work:index/ENTRY"},
	{name: "index entry without names", lowers: []string{"file f\nlink g f"}, spoil: func(s *site) {
		s.xattr(s.indexed("lower1/f", ""), trusted+"nlink", []byte("U-1"))
	}, want: "index entry without names|work:index/ENTRY"},
	{name: "link count of an index entry", lowers: []string{"file f\nlink g f"}, spoil: func(s *site) {
		s.xattr(s.indexed("lower1/f", ""), trusted+"nlink", []byte("x"))
	}, want: "invalid link count|work:index/ENTRY", after: "invalid link count|work:index/ENTRY"},

	{name: "whiteouts in lowers", lowers: []string{"white a\nwhite b", "file b\nwhite c"},
		want:  "whiteout that hides nothing|lower1:a\nwhiteout in the lowest layer|lower2:c",
		after: "whiteout that hides nothing|lower1:a\nwhiteout in the lowest layer|lower2:c"},
	{name: "opaque over nothing", upper: "opaque d\nopaque e\nopaque e/f", lowers: []string{"file e/f/g"},
		want:  "opaque mark that hides nothing|upper:d\nopaque mark that hides nothing|upper:e/f",
		after: "opaque mark that hides nothing|upper:d\nopaque mark that hides nothing|upper:e/f"},
	{name: "marker beside its object", upper: "file .wh.d\ndir d", lowers: []string{"file d/f"}, want: "marker beside its object|upper:.wh.d",
		after: "marker beside its object|upper:.wh.d"},
	{name: "redirect of an opaque directory", upper: "opaque d\nxattr d " + redirect + "/e", lowers: []string{"dir d\ndir e"},
		want: "redirect without effect|upper:d", after: "redirect without effect|upper:d"},
	{name: "root of another lower", lowers: []string{"", ""}, spoil: func(s *site) {
		s.xattr("upper", trusted+"origin", s.handle("lower2").Encode())
	}, want: "root of another lower|upper:.", after: "root of another lower|upper:."},
	{name: "unswept objects", lowers: []string{""}, spoil: func(s *site) {
		s.build("dir work/work 0700\nwhite work/work/#1\nfile work/work/12/.wh..wh..opq")
	}, want: "unswept object in work|work:work/#1\nunswept object in work|work:work/12",
		after: "unswept object in work|work:work/#1\nunswept object in work|work:work/12"},
	{name: "marker of fuse-overlayfs", upper: "file d/.wh..wh..opq\nwhite d/.wh..opq\nwhite e/.wh..opq\nwhite e/.wh.f", lowers: []string{"file d/f\nfile e/f"},
		want: "whiteout that hides nothing|upper:e/.wh..opq"},
	{name: "link count of a copy", upper: "file f\nxattr f " + trusted + "nlink U+1", lowers: []string{""},
		want: "link count without index|upper:f", after: "link count without index|upper:f"},
}

// entryName replaces the name of an entry of the index, which is a handle.
func entryName(lines string) string {
	var out []string
	for line := range strings.SplitSeq(lines, "\n") {
		if at := strings.Index(line, "index/00fb"); at >= 0 {
			line = line[:at] + "index/ENTRY"
		}
		out = append(out, line)
	}
	return strings.Join(out, "\n")
}
