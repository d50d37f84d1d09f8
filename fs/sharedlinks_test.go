package fs

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/sys"
	"github.com/fuse-overlay/fuse-overlay/internal/testkit"
)

const linkedFiles = "file a/f \"text\"\nlink b/g a/f\nlink b/h a/f\nfile b/x \"x\"\nfile b/p \"p\"\nlink b/q b/p"

// The scenarios of objects with several names, with index=on.
var linked = []scenario{
	{
		name: "write through a name", linked: true, lower: linkedFiles,
		send: func(s *site) request { return s.write("a/f", 0, "T") },
		change: `- file a/f 0644 "text"
			- file b/g 0644 "text"
			- file b/h 0644 "text"
			+ file a/f 0644 "Text"
			+ file b/g 0644 "Text"
			+ file b/h 0644 "Text"`,
	},
	{
		name: "chmod through another name", linked: true, lower: linkedFiles,
		send: func(s *site) request {
			s.do(s.write("b/g", 0, "text"))
			return s.chmod("a/f", 0o600)
		},
		change: `- file a/f 0644 "text"
			- file b/g 0644 "text"
			- file b/h 0644 "text"
			+ file a/f 0600 "text"
			+ file b/g 0600 "text"
			+ file b/h 0600 "text"`,
	},
	{
		name: "unlink of a name of a lower", linked: true, lower: linkedFiles,
		send:   func(s *site) request { return s.unlink("b/g") },
		change: "- file b/g 0644 \"text\"",
	},
	{
		name: "unlink of a name that was not changed through", linked: true, lower: linkedFiles,
		send: func(s *site) request {
			s.do(s.write("a/f", 0, "text"))
			return s.unlink("b/h")
		},
		change: "- file b/h 0644 \"text\"",
	},
	{
		name: "rename of a name", linked: true, lower: linkedFiles,
		send:   func(s *site) request { return s.rename("a/f", "b/new", 0) },
		change: "- file a/f 0644 \"text\"\n+ file b/new 0644 \"text\"",
	},
	{
		name: "rename over a name", linked: true, lower: linkedFiles,
		send:   func(s *site) request { return s.rename("b/x", "b/g", 0) },
		change: "- file b/g 0644 \"text\"\n- file b/x 0644 \"x\"\n+ file b/g 0644 \"x\"",
	},
	{
		name: "exchange of names", linked: true, lower: linkedFiles,
		send: func(s *site) request { return s.rename("b/p", "a/f", unix.RENAME_EXCHANGE) },
		change: `- file a/f 0644 "text"
			- file b/p 0644 "p"
			+ file a/f 0644 "p"
			+ file b/p 0644 "text"`,
	},
	{
		name: "a further name", linked: true, lower: linkedFiles,
		send:   func(s *site) request { return s.link("b/g", "a/new") },
		change: "+ file a/new 0644 \"text\"",
	},
}

// auditLinks fails the test if names of one object do not agree, or their number is not its link
// count. All names of the lowers' objects must lie in the layers.
func (s *site) auditLinks(what string) {
	s.t.Helper()
	names := map[uint64][]string{}
	attrs := map[uint64]fuse.Attr{}
	must(s.t, s.walkTree(1, "", func(p string, id uint64) error {
		a, err := s.getattr(id)
		if err != nil || a.Mode&unix.S_IFMT == unix.S_IFDIR {
			return err
		}
		if first, ok := attrs[a.Ino]; ok && first != a {
			s.t.Errorf("%s: %s has %+v, and %v %+v", what, p, a, names[a.Ino], first)
		}
		attrs[a.Ino], names[a.Ino] = a, append(names[a.Ino], p)
		return nil
	}))
	for ino, list := range names {
		if int(attrs[ino].Nlink) != len(list) {
			s.t.Errorf("%s: %v have a link count of %d", what, list, attrs[ino].Nlink)
		}
	}
}

// index are the names of the copies.
func (s *site) index() []string {
	s.t.Helper()
	entries, err := os.ReadDir(filepath.Join(s.cfg.Work, "index"))
	must(s.t, err)
	entries = slices.DeleteFunc(entries, isSharedWhiteout)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func newLinked(t *testing.T, lowers ...string) *site {
	t.Helper()
	c := newFolders(t, "", lowers...)
	c.Features.Index = true
	return openSite(t, c)
}

// What is done through one name shows under all, at once and after a remount, whatever the order in
// which they are met.
func TestLinkedFilesStayOne(t *testing.T) {
	for _, first := range []string{"a/f", "b/g", "b/h"} {
		s := newLinked(t, linkedFiles)
		before := s.number("a/f")
		s.forget(nil)
		s.do(s.write(first, 0, "T"))
		for range 3 {
			for _, p := range []string{"b/h", "a/f", "b/g"} {
				text, err := s.read(p)
				if err != nil || text != "Text" || s.number(p) != before {
					t.Errorf("changed as %s: %s is %q with number %#x, want %#x, %v", first, p, text, s.number(p), before, err)
				}
			}
			s.auditLinks(first)
			s.audit(first)
			s.distinct(first)
			s.remount()
		}
		if names := s.index(); len(names) != 1 {
			t.Errorf("the index has %v", names)
		}
		for i, p := range []string{"a/f", "b/h", "b/g"} {
			s.do(s.unlink(p))
			if i%2 == 0 {
				s.remount()
			}
			s.auditLinks("after removing " + p)
		}
		if names := s.index(); len(names) != 0 {
			t.Errorf("the last name is gone, and the index has %v", names)
		}
		s.remount()
		s.wantView("all removed", "dir a\nfile b/x \"x\"\nfile b/p \"p\"\nlink b/q b/p")
	}
}

// The last name goes, or it stays; the index has the object's copy in the one case only.
func TestEveryFaultOfTheLastName(t *testing.T) {
	for _, stop := range []bool{false, true} {
		for i := 0; ; i++ {
			s := newLinked(t, linkedFiles)
			s.do(s.unlink("b/p"))
			run := &faultRun{t: t}
			fired, err := run.fault(s.unlink("b/q"), i, unix.EIO, stop)
			s.remount()
			where := run.where(i, unix.EIO)
			there, copies := s.number("b/q") != 0, len(s.index())
			if there != (copies == 1) || there && err == nil {
				t.Errorf("%s: the error is %v, the name is there: %v, copies: %d", where, err, there, copies)
			}
			s.auditLinks(where)
			s.shut()
			if !fired {
				break
			}
		}
	}
}

// An object that has lost its last name still exists for a process that has it open.
func TestSharedObjectsThatAreOpen(t *testing.T) {
	s := newLinked(t, linkedFiles)
	id, err := s.walk("b/p")
	must(t, err)
	s.do(s.unlink("b/p"))
	s.do(s.unlink("b/q"))
	must(t, s.writeNode(id, 0, "still"))
	if text, err := s.readNode(id, 0, 9); err != nil || text != "still" {
		t.Errorf("it reads %q, %v", text, err)
	}
	if a, err := s.getattr(id); err != nil || a.Nlink != 0 {
		t.Errorf("%d links, %v", a.Nlink, err)
	}
	if names := s.index(); len(names) != 0 {
		t.Errorf("the index has %v", names)
	}
}

// A stop between any two calls leaves counts that are right, so that the next mount can go on;
// entries of no use are removed.
func TestIndexIsSwept(t *testing.T) {
	s := newLinked(t, linkedFiles)
	s.do(s.write("a/f", 0, "T"))
	s.do(s.write("b/p", 0, "P"))
	s.shut()
	dir := filepath.Join(s.cfg.Work, "index")
	must(t, os.MkdirAll(filepath.Join(dir, "#5/left"), 0o700))
	must(t, os.WriteFile(filepath.Join(dir, "#6"), nil, 0o600))
	// the object of b/p is gone from the lower, and from the upper
	must(t, os.Remove(filepath.Join(s.cfg.Upper, "b/p")))
	must(t, os.Remove(filepath.Join(s.cfg.Lowers[0], "b/p")))
	must(t, os.Remove(filepath.Join(s.cfg.Lowers[0], "b/q")))
	s.open()
	if names := s.index(); len(names) != 1 {
		t.Errorf("the index has %v", names)
	}
	s.auditLinks("swept")
	s.shut()
	must(t, os.WriteFile(filepath.Join(dir, "what-is-this"), nil, 0o600))
	o, err := Open(s.cfg)
	if err == nil {
		o.Close()
	}
	if err == nil || !strings.Contains(err.Error(), "what-is-this") {
		t.Errorf("an entry that makes no sense: %v", err)
	}
}

// The upper and its index belong to the first lower and to each other. Others are refused, with one
// line, and nothing is changed.
func TestIndexOfOtherLayers(t *testing.T) {
	s := newLinked(t, linkedFiles)
	s.do(s.write("a/f", 0, "T"))
	s.shut()
	other := newFolders(t, "", linkedFiles)
	snapshot := func() string { return testkit.Snapshot(t, s.cfg.Upper) + testkit.Snapshot(t, s.cfg.Work) }
	before := snapshot()
	refused := func(what, part string, c Config) {
		t.Helper()
		o, err := Open(c)
		if err == nil {
			o.Close()
			t.Errorf("%s: it was mounted", what)
			return
		}
		if !strings.Contains(err.Error(), part) || strings.Contains(err.Error(), "\n") || !strings.Contains(err.Error(), "ESTALE") {
			t.Errorf("%s: %v", what, err)
		}
		if d := testkit.Diff(before, snapshot()); d != "" {
			t.Errorf("%s: changed:\n%s", what, d)
		}
	}
	c := s.cfg
	c.Lowers = other.Lowers
	refused("another lower", "upperdir", c)
	c = s.cfg
	c.Upper = other.Upper
	refused("another upper", "workdir", c)
	c = s.cfg
	c.Lowers = append(slices.Clone(c.Lowers), other.Lowers...) // below the first others may come and go
	s.cfg = c
	s.open()
	s.auditLinks("with one more lower")
}

// Without handles, or without an xattr to keep a count in, links are broken as without an index,
// and the log has a warning.
func TestIndexThatCannotBe(t *testing.T) {
	for _, call := range []string{"name_to_handle_at", "setxattr"} {
		c := newFolders(t, "", linkedFiles)
		c.Features.Index = true
		sys.SetFault(func(op sys.Op) error {
			if op.Call == call {
				return unix.EOPNOTSUPP
			}
			return nil
		})
		o, err := Open(c)
		sys.SetFault(nil)
		must(t, err)
		if o.stack.KeepsLinks() || len(o.stack.Warnings()) != 1 {
			t.Errorf("without %s: %v", call, o.stack.Warnings())
		}
		o.Close()
		if _, err := os.Stat(filepath.Join(c.Work, "index")); err == nil {
			t.Errorf("without %s: there is an index", call)
		}
	}
}

// Links that were broken by a mount without an index stay broken.
func TestLinksBrokenBefore(t *testing.T) {
	s := newSite(t, "", linkedFiles)
	s.do(s.write("b/p", 0, "P"))
	s.shut()
	s.cfg.Features.Index = true
	s.open()
	s.do(s.write("b/q", 0, "Q"))
	for range 2 {
		one, err := s.read("b/p")
		must(t, err)
		two, err := s.read("b/q")
		if must(t, err); one != "P" || two != "Q" || s.number("b/p") == s.number("b/q") {
			t.Errorf("%q and %q", one, two)
		}
		s.remount()
	}
}

// A file without data, one of whose names has a path too long for a redirect, is linked all the
// same: it may be another name that was meant.
func TestLinkOfASharedFileWithALongName(t *testing.T) {
	long := strings.Repeat("n", 255)
	c := newFolders(t, "", fmt.Sprintf("file %s/d/f \"text\"\nlink g %s/d/f", long, long))
	c.Features.Index, c.Features.MetaCopy, c.Redirects = true, true, RedirectsOn
	s := openSite(t, c)
	s.do(s.chmod(long+"/d/f", 0o600))
	want(t, "with one name known", s.link(long+"/d/f", "new")(), unix.EXDEV)
	_, err := s.walk("g")
	must(t, err)
	s.do(s.link("g", "new"))
	for range 2 {
		for _, p := range []string{long + "/d/f", "g", "new"} {
			if text, err := s.read(p); err != nil || text != "text" {
				t.Errorf("%s is %q, %v", p, text, err)
			}
		}
		s.auditLinks("linked")
		s.remount()
	}
}

// An object without links costs what it does without an index.
func TestIndexCostsNothingWithoutLinks(t *testing.T) {
	s := newLinked(t, "file d/f\nfile d/p\nlink d/q d/p")
	dir, err := s.walk("d")
	must(t, err)
	_, err = s.lookup(dir, "none") // so that the directory is opened
	want(t, "nothing", err, unix.ENOENT)
	for name, cost := range map[string]string{"f": "[fstatat]", "p": "[fstatat name_to_handle_at fstatat fstatat]"} {
		if made := fmt.Sprint(names(calls(func() { _, err = s.lookup(dir, name) }))); made != cost {
			t.Errorf("%s costs %s, want %s", name, made, cost)
		}
		must(t, err)
		if made := fmt.Sprint(names(calls(func() { _, err = s.lookup(dir, name) }))); made != "[fstatat]" {
			t.Errorf("%s again costs %s", name, made)
		}
	}
}
