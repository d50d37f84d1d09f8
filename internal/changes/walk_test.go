package changes

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/sys"
	"github.com/fuse-overlay/fuse-overlay/internal/testkit"
	"github.com/fuse-overlay/fuse-overlay/internal/testkit/systest"
)

// One case for each kind of change, and for each form in which an upper has it.
func TestChanges(t *testing.T) {
	for _, tt := range []struct{ name, upper, lower, want string }{
		{"nothing", "", "file a\ndir d", ""},
		{"added", "file a\nfile d/in\nsymlink d/l x\nfifo p", "file b", "A a\nA d\nA d/in\nA d/l\nA p"},
		{"added in a directory of the lowers", "file d/new", "file d/old", "A d/new"},
		{"copied up, equal", "file d/a \"x\"", "file d/a \"x\"\nfile d/b", ""},
		{"content", "file a \"x\"\nfile b \"xy\"\nsymlink l 1\nchar c 1/3", "file a \"y\"\nfile b \"x\"\nsymlink l 2\nchar c 1/5",
			"M a|content\nM b|content\nM c|content\nM l|content"},
		{"mode", "file a 0600\ndir d 0700", "file a 0644\ndir d 0755\nfile d/in", "M a|mode\nM d|mode"},
		{"owner", "file a\nown a 1 0\nfile b\nown b 0 1", "file a\nfile b", "M a|owner\nM b|owner"},
		{"xattrs", "file a\nxattr a user.x 1\nfile b\nfile c\nxattr c trusted.overlay.overlay.x 1",
			"file a\nxattr a user.x 2\nfile b\nxattr b user.x 1\nfile c\nxattr c trusted.overlay.overlay.x 1",
			"M a|xattrs\nM b|xattrs"},
		{"overlay's own xattrs", "file a\nxattr a trusted.overlay.origin x\ndir d\nxattr d trusted.overlay.impure y", "file a\ndir d", ""},
		{"all", "file a 0600 \"1\"\nown a 1 1\nxattr a user.x 1", "file a \"2\"", "M a|content,mode,owner,xattrs"},
		{"deleted", "white f\nwhite d\nwhite none", "file f\nfile d/in\nfile d/sub/in", "D d\nD f"},
		{"deleted by markers", "file .wh.f\nfile d/.wh.in", "file f\nfile d/in\nfile d/other", "D d/in\nD f"},
		{"deleted by xattrs", "file f\nxattr f trusted.overlay.whiteout \"\"\nxattr . trusted.overlay.opaque x", "file f", "D f"},
		{"another type", "file d\ndir f\nfile f/in\nsymlink p x", "file d/in\nfile f\nfifo p", "M d|type\nM f|type\nA f/in\nM p|type"},
		{"opaque", "opaque d\nfile d/a \"1\"\nfile d/new\ndir d/sub\nfile d/same", "file d/a \"2\"\nfile d/b\nfile d/sub/x\nfile d/same\ndir d/z",
			"M d/a|content\nD d/b\nA d/new\nD d/sub/x\nD d/z"},
		{"opaque by a marker", "file d/.wh..wh..opq\nfile d/new", "file d/old", "A d/new\nD d/old"},
		{"opaque root", "file .wh..wh..opq\nfile new", "file old", "A new\nD old"},
		{"a directory beside its marker", "dir d\nfile .wh.d", "file d/old", "D d/old"},
		{"a file beside its marker", "file f \"1\"\nfile .wh.f", "file f \"2\"", "M f|content"},
		{"linked", "file b\nlink a b\nlink c b", "", "A a\nH b|a\nH c|a"},
		{"linked to an unchanged file", "file a\nlink b a", "file a", "H b|a"},
		{"linked to a changed file", "file a \"1\"\nlink b a", "file a \"2\"", "M a|content\nH b|a"},
		{"linked in the lower as well", "file a \"1\"\nlink b a\nlink c a", "file a \"2\"\nlink b a", "M a|content\nM b|content\nH c|a"},
		{"order", "dir a\nfile a/x\nfile a.b\nfile B\nfile a-", "", "A B\nA a\nA a/x\nA a-\nA a.b"},
		{"quoted", "file \"a\\tb\\\"\\\\\\xff\"\nfile \"d e/f\\n\"", "", "A \"a\\tb\\\"\\\\\\377\"\nA d e\nA \"d e/f\\n\""},
	} {
		cfg := layers(t, tt.upper, tt.lower)
		want(t, tt.name, lines(t, cfg), tt.want)
	}
}

// What redirects and metacopies lead to is compared with what they lead to.
func TestRenames(t *testing.T) {
	const redirect, metacopy = "trusted.overlay.redirect", "trusted.overlay.metacopy"
	for _, tt := range []struct{ name, upper, lower, want string }{
		{"a directory", "dir new\nxattr new " + redirect + " /old\nwhite old\nfile new/a \"1\"\nfile new/more",
			"file old/a \"2\"\nfile old/b", "R new|old\nM new/a|content\nA new/more\nD old"},
		{"with another mode", "dir new 0700\nxattr new " + redirect + " old\nwhite old", "file old/a", "R new|old|mode\nD old"},
		{"in its directory", "dir d/new\nxattr d/new " + redirect + " old\nwhite d/old\nwhite d/new/a", "file d/old/a", "R d/new|d/old\nD d/new/a\nD d/old"},
		{"in a renamed directory", "dir b/y\nxattr b " + redirect + " /a\nxattr b/y " + redirect + " x\nwhite a\nwhite b/x\nfile b/y/new",
			"file a/x/f\nfile a/z", "D a\nR b|a\nD b/x\nR b/y|a/x\nA b/y/new"},
		{"over another directory", "dir new\nxattr new " + redirect + " /old\nwhite old", "file old/a\nfile new/b", "R new|old\nD old"},
		{"and back", "dir old\nxattr old " + redirect + " /old\nfile old/a", "file old/b", "A old/a"},
		{"to nothing", "dir new\nxattr new " + redirect + " /none\nfile new/a", "file new/b", "A new/a\nD new/b"},
		{"in an opaque directory", "opaque d\ndir d/new\nxattr d/new " + redirect + " old", "file d/old/a", "A d/new\nD d/old"},
		{"a file", "file new\nsize new 3\nxattr new " + metacopy + " \"\"\nxattr new " + redirect + " /old\nwhite old",
			"file old 0600 \"abc\"", "R new|old|mode\nD old"},
		{"a metacopy", "file f 0600\nsize f 3\nxattr f " + metacopy + " \"\"", "file f \"abc\"", "M f|mode"},
		{"a metacopy that equals", "file f\nsize f 3\nxattr f " + metacopy + " \"\"", "file f \"abc\"", ""},
		{"a metacopy that was cut", "file f\nsize f 2\nxattr f " + metacopy + " \"\"", "file f \"abc\"", "M f|content"},
		{"out of an opaque directory", "opaque d\ndir d/new\nxattr d/new " + redirect + " /old\ndir d/new/sub\nwhite old", "file old/a\nfile old/sub/b", "A d\nR d/new|old\nD old"},
		{"a link of a metacopy", "file f\nsize f 3\nxattr f " + metacopy + " \"\"\nxattr f " + redirect + " /f\nlink g f",
			"file f \"abc\"", "H g|f"},
		{"a link before a metacopy", "file f\nsize f 3\nxattr f " + metacopy + " \"\"\nxattr f " + redirect + " /f\nlink a f",
			"file f \"abc\"", "A a\nH f|a"},
		{"two names for one", "file a\nsize a 3\nxattr a " + metacopy + " \"\"\nxattr a " + redirect + " /f\nlink b a\nwhite f",
			"file f \"abc\"", "R a|f\nH b|a\nD f"},
	} {
		cfg := layers(t, tt.upper, tt.lower)
		want(t, tt.name, lines(t, cfg), tt.want)
	}
}

// Lowers merge as in a mount: what a lower of two hides is not there.
func TestSeveralLowers(t *testing.T) {
	cfg := layers(t, "white d/a\nwhite d/b\nwhite d/c\nfile d/x", "white d/b\nfile d/c", "file d/a\nfile d/b\nfile d/x")
	want(t, "two lowers", lines(t, cfg), "D d/a\nD d/c")
}

// Without lowers everything is compared with nothing.
func TestUpperAlone(t *testing.T) {
	cfg := layers(t, `
		file a
		link b a
		white gone
		file .wh.marked
		opaque d
		file d/in
		dir moved
		xattr moved trusted.overlay.redirect /old
		file moved/in
		dir moved/x
		xattr moved/x trusted.overlay.redirect y
		file meta
		xattr meta trusted.overlay.metacopy ""
		file metamoved
		xattr metamoved trusted.overlay.metacopy ""
		xattr metamoved trusted.overlay.redirect other
	`)
	cfg.Lowers = nil
	want(t, "alone", lines(t, cfg), "A a\nH b|a\nA d\nA d/in\nD gone\nD marked\nM meta\nR metamoved|other\nR moved|old\nA moved/in\nR moved/x|old/y")
}

// A redirect that leads out of the layers is an error, and so is a metacopy that leads nowhere.
func TestBrokenLayers(t *testing.T) {
	const redirect, metacopy = "trusted.overlay.redirect", "trusted.overlay.metacopy"
	for _, tt := range []struct {
		upper string
		alone bool
		want  string
	}{
		{"dir d/x\nxattr d/x " + redirect + " ../../etc", false, "d/x: invalid argument"},
		{"dir d/x\nxattr d/x " + redirect + " ../../etc", true, "d/x: invalid argument"},
		{"file f\nxattr f " + metacopy + " \"\"\nxattr f " + redirect + " /a//b", true, "f: invalid argument"},
		{"file f\nsize f 1\nxattr f " + metacopy + " \"\"", false, "f: input/output error"},
	} {
		cfg := layers(t, tt.upper, "")
		if tt.alone {
			cfg.Lowers = nil
		}
		if err := open(t, cfg).Walk(nil, &Lines{W: &strings.Builder{}}); err == nil || err.Error() != tt.want {
			t.Errorf("%q: %v, want %s", tt.upper, err, tt.want)
		}
	}
}

// Paths select what is reported.
func TestPaths(t *testing.T) {
	const upper = "file a/b/new\nfile a/c 0600\nwhite a/gone\nfile x\nwhite dir\nfile type\nopaque o\nfile o/in"
	const lower = "file a/c\nfile a/gone/in\nfile dir/sub/f\nfile type/f\nfile o/lost\nfile o/other\nfile o/deep/f"
	for paths, table := range map[string]string{
		".":                  "A a/b\nA a/b/new\nM a/c|mode\nD a/gone\nD dir\nD o/deep\nA o/in\nD o/lost\nD o/other\nM type|type\nA x",
		"a":                  "A a/b\nA a/b/new\nM a/c|mode\nD a/gone",
		"a/b":                "A a/b\nA a/b/new",
		"a/b/new x":          "A a/b/new\nA x",
		"./a//c":             "M a/c|mode",
		"a/gone/in dir/none": "D a/gone/in",
		"dir/sub type/f":     "D dir/sub\nD type/f",
		"o/lost":             "D o/lost",
		"o/deep/f":           "D o/deep/f",
		"b none/at/all":      "",
	} {
		want(t, paths, lines(t, layers(t, upper, lower), strings.Fields(paths)...), table)
	}
}

// countChanges makes an upper with changes in a directory with many names, and returns how many
// system calls the comparison makes.
func countChanges(t *testing.T, names int) int {
	t.Helper()
	var lower, upper, other strings.Builder
	for i := range names {
		fmt.Fprintf(&lower, "file d/%d\nfile d/sub%d/f\n", i, i%10)
		fmt.Fprintf(&other, "file d/other%d\n", i)
	}
	for i := range 20 {
		fmt.Fprintf(&upper, "file d/new%d\nfile d/%d \"changed\"\nwhite d/%d\n", i, i, i+20)
	}
	upper.WriteString("file d/sub1/new\nwhite d/sub2\n")
	c := open(t, layers(t, upper.String(), lower.String(), other.String()))
	var s Summary
	calls := systest.Calls(func() { must(t, c.Walk(nil, &s)) })
	if s.counts[Added] != 21 || s.counts[Modified] != 20 || s.counts[Deleted] != 21 {
		t.Errorf("counted %v", s.counts)
	}
	return len(calls)
}

// The number of system calls depends on the upper, not on how many names the lowers have.
func TestCostGrowsWithTheUpper(t *testing.T) {
	small, large := countChanges(t, 100), countChanges(t, 5000)
	if small != large || small == 0 {
		t.Errorf("%d calls with few names, %d with many", small, large)
	}
}

// If a system call fails, the comparison ends with its error, or makes the call again. It never
// reports anything else than without the fault, and leaves no descriptor open.
func TestFaults(t *testing.T) {
	cfg := layers(t, `
		file a "1"
		link b a
		white gone
		opaque d
		file d/in 0600
		xattr d/in user.x 1
		dir moved
		xattr moved trusted.overlay.redirect /old
		white old
		symlink l 1
		file meta
		size meta 3
		xattr meta trusted.overlay.metacopy ""
	`, "file a \"2\"\nfile gone\nfile d/in\nfile d/lost\nfile old/f\nsymlink l 2\nfile meta \"abc\"")
	before := testkit.OpenFDs(t)
	c, err := Open(cfg)
	must(t, err)
	walked := func() (string, error) {
		var b strings.Builder
		err := c.Walk(nil, &Lines{W: &b})
		return b.String(), err
	}
	whole := ""
	calls := len(systest.Calls(func() {
		var err error
		whole, err = walked()
		must(t, err)
	}))
	for i := range calls {
		n, got := -1, ""
		var err error
		systest.While(func(sys.Op) bool { n++; return n == i }, unix.EIO, func() { got, err = walked() })
		if err != nil && !errors.Is(err, unix.EIO) || err == nil && got != whole {
			t.Errorf("call %d of %d: %v\n%s", i, calls, err, got)
		}
	}
	c.Close()
	if after := testkit.OpenFDs(t); after != before {
		t.Errorf("%d descriptors are open, %d were", after, before)
	}
}
