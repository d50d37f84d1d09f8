package check

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/sys"
	"github.com/fuse-overlay/fuse-overlay/internal/testkit"
	"github.com/fuse-overlay/fuse-overlay/internal/testkit/systest"
)

func (d *damage) site(t *testing.T) *site {
	t.Helper()
	s := newSite(t, d.upper, d.lowers...)
	if d.spoil != nil {
		d.spoil(s)
	}
	return s
}

func sortedLines(s string) string {
	lines := strings.Split(s, "\n")
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// Each kind of damage is found by its kind, where it is, and nothing else is.
func TestEachKindIsFound(t *testing.T) {
	found := map[Kind]bool{}
	for _, d := range damages {
		t.Run(d.name, func(t *testing.T) {
			findings := d.site(t).findings()
			for _, f := range findings {
				found[f.Kind] = true
			}
			if got := entryName(places(findings)); got != sortedLines(d.want) {
				t.Errorf("found:\n%s\nwant:\n%s", got, d.want)
			}
		})
	}
	damage := 0
	for _, k := range Kinds() {
		if !k.Note {
			damage++
		}
		if !found[k.Kind] && k.Kind != Unreadable && k.Kind != OtherFileSystem { // which have tests of their own
			t.Errorf("no case makes %q", k.Kind)
		}
	}
	if damage < 40 {
		t.Errorf("%d kinds of damage", damage)
	}
}

// repairAll makes all repairs of a site.
func (s *site) repairAll() error {
	s.t.Helper()
	var w *Writer
	var err error
	systest.WithoutClones(func() { w, err = Lock(s.config()) })
	must(s.t, err)
	defer w.Close()
	for _, f := range s.findings() {
		if f.Repair == nil {
			continue
		}
		if err := f.Repair.Apply(w); err != nil {
			return err
		}
	}
	return nil
}

// What can be repaired is not found again, and what cannot stays as it is. The description of a
// kind states whether there is a repair.
func TestRepairs(t *testing.T) {
	repaired := map[Kind]bool{}
	for _, d := range damages {
		t.Run(d.name, func(t *testing.T) {
			s := d.site(t)
			if s.Work == s.Lowers[len(s.Lowers)-1] || s.Upper == s.Lowers[len(s.Lowers)-1] {
				return // a mount could not use it, so there is nothing to lock
			}
			for _, f := range s.findings() {
				repaired[f.Kind] = repaired[f.Kind] || f.Repair != nil
			}
			must(t, s.repairAll())
			if got := entryName(places(s.findings())); got != sortedLines(d.after) {
				t.Errorf("after the repairs:\n%s\nwant:\n%s", got, d.after)
			}
		})
	}
	for _, k := range Kinds() {
		if repaired[k.Kind] != k.Repairs {
			t.Errorf("%q: repaired %v, its description says %v", k.Kind, repaired[k.Kind], k.Repairs)
		}
	}
}

// A repair changes neither names nor data that a mount shows, at any of its system calls.
func TestRepairsLoseNothing(t *testing.T) {
	for _, d := range damages {
		if d.want == d.after {
			continue
		}
		t.Run(d.name, func(t *testing.T) {
			for failing := 0; ; failing++ {
				s := d.site(t)
				before, whole, files := shown(s, false), shown(s, true), dataOf(t, s.Upper)
				c := s.open()
				var found []Finding
				var w *Writer
				var err error
				systest.WithoutClones(func() { w, err = Lock(s.config()) })
				must(t, err)
				systest.WithoutClones(func() { found, err = c.Run() })
				must(t, err)
				n := -1
				systest.While(func(sys.Op) bool { n++; return n >= failing }, unix.EIO, func() {
					for _, f := range found {
						if f.Repair != nil && err == nil {
							err = f.Repair.Apply(w)
						}
					}
				})
				w.Close()
				if now := shown(s, false); now != before && !strings.Contains(before, "error") {
					t.Errorf("with call %d failing the view is another:\n%s", failing, testkit.Diff(before, now))
				}
				if now := dataOf(t, s.Upper); now != files {
					t.Errorf("with call %d failing data is gone:\n%s", failing, testkit.Diff(files, now))
				}
				if err == nil {
					if now := shown(s, true); now != whole && !strings.Contains(before, "error") {
						t.Errorf("times are others:\n%s", testkit.Diff(whole, now))
					}
					return
				}
				if !errors.Is(err, unix.EIO) {
					t.Fatal(err)
				}
			}
		})
	}
}

// A check without work directory, without lowers and without notes.
func TestLessToCheck(t *testing.T) {
	s := newSite(t, "opaque o\nwhite o/gone\nwhite useless\nfile f\nxattr f "+metacopy+"\"\"\ndir d\nxattr d "+redirect+"/none\nfile .wh..wh.plnk", "white x")
	s.build("file work/foreign")
	cfg := s.config()
	cfg.Work, cfg.Notes = "", false
	if got := places(run(t, cfg)); got != "broken redirect|upper:d\nforeign marker|upper:.wh..wh.plnk\nmetacopy without data|upper:f\norphan whiteout|upper:o/gone" {
		t.Errorf("without work and notes:\n%s", got)
	}
	cfg.Layers.Lowers = nil
	if got := places(run(t, cfg)); got != "foreign marker|upper:.wh..wh.plnk" {
		t.Errorf("without lowers:\n%s", got)
	}
}

func run(t *testing.T, cfg Config) (found []Finding) {
	t.Helper()
	systest.WithoutClones(func() {
		c, err := Open(cfg)
		must(t, err)
		defer c.Close()
		found, err = c.Run()
		must(t, err)
	})
	return found
}

// The work directory must be on the file system of the upper.
func TestWorkOnAnotherFileSystem(t *testing.T) {
	s := newSite(t, "", "")
	s.Work = testkit.Mount(t, "tmpfs", "tmpfs", "")
	if got := places(s.findings()); got != "work on another file system|work:." {
		t.Errorf("found:\n%s", got)
	}
}

// If a system call fails, the check fails, makes the call again, or reports an object that cannot
// be read. It does not report less.
func TestFaults(t *testing.T) {
	s := newSite(t, "white gone\nfile d/f\ndir m\nxattr m "+redirect+"/none\nfile .wh..wh.plnk\nfile meta\nsize meta 3\nxattr meta "+metacopy+"\"\"",
		"file d/f\nfile meta \"ab\"\nwhite low")
	s.copyOf("upper/d/f", "lower1/d/f")
	s.indexed("lower1/d/f", "")
	s.build("dir work/work 0700\nfile work/work/#1")
	before := testkit.OpenFDs(t)
	var c *Checker
	var err error
	systest.WithoutClones(func() { c, err = Open(s.config()) })
	must(t, err)
	var whole []Finding
	calls := len(systest.Calls(func() { whole, err = c.Run(); must(t, err) }))
	if len(whole) < 6 {
		t.Fatalf("found only\n%s", places(whole))
	}
	unreadable := 0
	for i := range calls {
		n := -1
		var found []Finding
		systest.While(func(sys.Op) bool { n++; return n == i }, unix.EIO, func() { found, err = c.Run() })
		if err != nil {
			continue
		}
		hasUnreadable := slices.ContainsFunc(found, func(f Finding) bool {
			return f.Kind == Unreadable || f.Kind == InvalidOwner || f.Kind == BrokenMetacopy
		})
		if hasUnreadable {
			unreadable++
		} else if len(found) < len(whole)-1 {
			t.Errorf("call %d of %d: only\n%s", i, calls, places(found))
		}
	}
	if unreadable == 0 {
		t.Error("no fault made an unreadable object")
	}
	c.Close()
	if after := testkit.OpenFDs(t); after != before {
		t.Errorf("%d descriptors are open, %d were", after, before)
	}
}

// A check changes nothing, not even access times.
func TestCheckChangesNothing(t *testing.T) {
	for _, d := range damages {
		s := d.site(t)
		base := s.path("")
		before := testkit.Snapshot(t, base)
		run(t, s.config())
		if diff := testkit.Diff(before, testkit.Snapshot(t, base)); diff != "" {
			t.Errorf("%s: the check has changed\n%s", d.name, diff)
		}
	}
}

// A mount that holds the upper keeps repairs out, and is named.
func TestInUse(t *testing.T) {
	s := newSite(t, "", "")
	s.build("dir work/work 0700\nfile work/work/#1")
	upper, work, err := sys.OpenUpper(s.Upper, s.Work, 0)
	must(t, err)
	defer upper.Close()
	defer work.Close()
	must(t, upper.Lock())
	must(t, upper.Publish(sys.Holder{PID: os.Getpid(), Dev: 1, Mount: 1, PIDNamespace: 1, MountNamespace: 1}))
	c := s.open()
	by, err := c.InUse()
	must(t, err)
	if !strings.Contains(by, "fuse-overlay") {
		t.Errorf("in use by %q", by)
	}
	if found := s.findings(); len(found) > 0 {
		t.Errorf("what the mount has in its work directory is found:\n%s", places(found))
	}
	if _, err := Lock(s.config()); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("lock: %v", err)
	}
}

// The marks of a plain user are checked as those of root are, and with userxattr only they count.
func TestMarksOfAUser(t *testing.T) {
	tried := 0
	for _, d := range damages {
		tables := strings.Join(append([]string{d.upper}, d.lowers...), "\n")
		if d.spoil != nil || strings.Contains(tables, "redirect") || strings.Contains(tables, "metacopy") ||
			strings.Contains(tables, "user.overlay.") || strings.Contains(tables, "fifo") {
			continue // userxattr follows neither redirects nor metacopies
		}
		tried++
		t.Run(d.name, func(t *testing.T) {
			var lowers []string
			for _, lower := range d.lowers {
				lowers = append(lowers, ofUser(lower))
			}
			s := newSite(t, ofUser(d.upper), lowers...)
			s.names.UserOnly = true
			if got := places(s.findings()); got != sortedLines(d.want) {
				t.Errorf("found:\n%s\nwant:\n%s", got, d.want)
			}
			must(t, s.repairAll())
			if got := places(s.findings()); got != sortedLines(d.after) {
				t.Errorf("after the repairs:\n%s\nwant:\n%s", got, d.after)
			}
		})
	}
	if tried < 15 {
		t.Errorf("only %d cases", tried)
	}
	s := newSite(t, "file f\nxattr f "+opaque+"y", "")
	s.names.UserOnly = true
	if got := places(s.findings()); got != "" {
		t.Errorf("with userxattr trusted.overlay.* is content, and is found:\n%s", got)
	}
}

// ofUser replaces the marks in a table by those of a plain user.
func ofUser(table string) string {
	var lines []string
	for line := range strings.SplitSeq(strings.ReplaceAll(table, trusted, "user.overlay."), "\n") {
		if path, ok := strings.CutPrefix(line, "opaque "); ok {
			line = "dir " + path + "\nxattr " + path + " user.overlay.opaque y"
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, "\n")
}
