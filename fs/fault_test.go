package fs

import (
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/owner"
	"github.com/fuse-overlay/fuse-overlay/internal/sys"
	"github.com/fuse-overlay/fuse-overlay/internal/testkit"
)

// scenario is one request, the layers it meets, and what it changes.
type scenario struct {
	name         string
	upper, lower string // whiteouts as devices
	send         func(s *site) request
	change       string // of the view, as diffLines returns it; empty: nothing
	formats      bool   // whiteouts matter: run with markers and attributes as well
	overDir      bool   // a directory is renamed over one and leaves a whiteout: with attributes, that is EXDEV
	copies       bool   // it is about a copy-up: run without syncing and on a journal as well
	redirects    bool   // directories with lower parts are renamed
	metacopy     bool   // metacopies are met
	linked       bool   // linked lower files stay one object
	inodes       bool   // it goes otherwise where owner and mode are attributes: no ACLs, and a listing leaves out what fails
}

// setting is one way of running a scenario.
type setting struct {
	name                       string
	markers, volatile, journal bool
	xattrs                     bool // whiteouts are attributes (xattr_whiteouts)
	attributes                 bool // owner and mode in attributes (xattr_permissions)
	metacopies                 bool // metacopy=on
}

func (c *scenario) settings() []setting {
	all := []setting{{name: "devices", metacopies: c.metacopy}}
	if c.linked {
		return append(all, setting{name: "journal", journal: true}, setting{name: "metacopy", metacopies: true})
	}
	if c.metacopy {
		return append(all, setting{name: "volatile", volatile: true, metacopies: true}, setting{name: "journal", journal: true, metacopies: true})
	}
	if !c.inodes {
		all = append(all, setting{name: "attributes", attributes: true})
	}
	if c.formats {
		all = append(all, setting{name: "markers", markers: true})
		if !c.overDir {
			all = append(all, setting{name: "attribute whiteouts", xattrs: true})
		}
	}
	if c.copies {
		all = append(all, setting{name: "volatile", volatile: true}, setting{name: "journal", journal: true},
			setting{name: "metacopy", metacopies: true})
	}
	return all
}

// asMarkers turns the whiteout devices of a table into markers.
func asMarkers(table string) string {
	var out []string
	for line := range strings.SplitSeq(table, "\n") {
		if p, ok := strings.CutPrefix(strings.TrimSpace(line), "white "); ok {
			at := strings.LastIndexByte(p, '/') + 1
			line = "file " + p[:at] + ".wh." + p[at:]
		}
		out = append(out, line)
	}
	return strings.Join(out, "\n")
}

// Each system call of each request fails once, and each is the last one before a stop. Afterwards
// the folders show the state before or the state after, nothing else, and a clean work directory,
// and another try succeeds: in a new overlay, and in the one that met the error.
func TestEveryFault(t *testing.T) {
	withoutRanks(t)
	journal := journaled(t)
	for _, c := range scenarios {
		for _, set := range c.settings() {
			t.Run(c.name+"/"+set.name, func(t *testing.T) {
				if set.journal {
					t.Setenv("TMPDIR", journal)
				}
				run := &faultRun{t: t, scenario: c, setting: set}
				run.findStates()
				for i := 0; !t.Failed() && run.thenRemount(i, unix.EIO, false); i++ {
				}
				for i := 0; !t.Failed() && run.thenRemount(i, unix.ENOSPC, true); i++ {
				}
				for i := 0; !t.Failed() && run.thenGoOn(i, unix.ENOSPC); i++ {
				}
			})
		}
	}
}

// faultRun is one scenario in one setting.
type faultRun struct {
	t *testing.T
	scenario
	setting
	before, after string
	failed        sys.Op // the call that failed last
}

func (r *faultRun) open() *site {
	r.t.Helper()
	upper, lower := r.upper, r.lower
	if r.markers {
		upper = asMarkers(upper)
	}
	c := newFolders(r.t, upper, lower)
	c.Volatile = r.volatile
	if r.redirects || r.metacopies {
		c.Redirects = RedirectsOn
	}
	c.Features.MetaCopy = r.metacopies
	c.Features.Index = r.linked
	if r.attributes {
		c.Permissions = owner.Permissions(2)
	}
	c.Features.XattrWhiteouts = r.xattrs
	s := &site{t: r.t, cfg: c, markers: r.markers || r.xattrs}
	s.open()
	return s
}

// findStates runs the scenario without a fault.
func (r *faultRun) findStates() {
	r.t.Helper()
	s := r.open()
	r.before = s.view()
	s.shut()
	s.open()
	s.do(r.send(s))
	running := s.view()
	s.audit("without a fault")
	s.remount()
	r.after = s.view()
	s.wantEmptyWork("without a fault")
	s.shut()
	if running != r.after {
		r.t.Fatalf("after a remount the view is another:\n%s", testkit.Diff(running, r.after))
	}
	if d := testkit.Diff(r.before, r.after); d != tidy(r.change) {
		r.t.Fatalf("the change is\n%s\nwant\n%s", d, tidy(r.change))
	}
}

// tidy takes the indentation off a text.
func tidy(text string) string {
	var lines []string
	for line := range strings.SplitSeq(text, "\n") {
		if line = strings.TrimSpace(line); line != "" {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "\n")
}

// fault makes a request in which call i fails, and after a stop every later one. fired reports
// whether it came so far.
func (r *faultRun) fault(send request, i int, errno unix.Errno, stop bool) (fired bool, err error) {
	n := 0
	sys.SetFault(func(op sys.Op) error {
		n++
		if n-1 == i {
			r.failed = op
		}
		if n-1 == i || stop && n-1 > i {
			return errno
		}
		return nil
	})
	err = send()
	sys.SetFault(nil)
	if err != nil && err != errno {
		r.t.Errorf("%s: the error is %v", r.where(i, errno), err)
	}
	return n > i, err
}

func (r *faultRun) where(i int, errno unix.Errno) string {
	return fmt.Sprintf("call %d, %s %q, fails with %s", i, r.failed.Call, r.failed.Name, unix.ErrnoName(errno))
}

// wantState fails the test when a view is neither that before nor that after, or that before in
// spite of a success.
func (r *faultRun) wantState(where, view string, err error) {
	r.t.Helper()
	switch {
	case view == r.after:
	case view != r.before:
		r.t.Errorf("%s: the state is neither that before nor that after; after it:\n%s", where, testkit.Diff(r.after, view))
	case err == nil:
		r.t.Errorf("%s: the reply was a success", where)
	}
}

// thenRemount looks at the folders after a fault, and tries again there.
func (r *faultRun) thenRemount(i int, errno unix.Errno, stop bool) (fired bool) {
	r.t.Helper()
	fds := openFDs(r.t)
	s := r.open()
	fired, err := r.fault(r.send(s), i, errno, stop)
	s.remount()
	where := r.where(i, errno)
	if stop {
		where += " as do all after it"
	}
	s.wantEmptyWork(where)
	view := s.view()
	r.wantState(where, view, err)
	if r.linked {
		s.auditLinks(where)
	}
	if view == r.before {
		if err := r.send(s)(); err != nil {
			r.t.Errorf("%s: the second try: %v", where, err)
		}
		if d := testkit.Diff(r.after, s.view()); d != "" {
			r.t.Errorf("%s: the second try, after a remount, gives\n%s", where, d)
		}
	}
	s.shut()
	if now := openFDs(r.t); now != fds {
		r.t.Errorf("%s: %d descriptors are left open", where, now-fds)
	}
	return fired
}

// thenGoOn goes on in the overlay that met the fault.
func (r *faultRun) thenGoOn(i int, errno unix.Errno) (fired bool) {
	r.t.Helper()
	s := r.open()
	fired, err := r.fault(r.send(s), i, errno, false)
	where := r.where(i, errno)
	if i%2 == 0 { // not always: looking may put right what is wrong
		s.audit(where)
		r.wantState(where, s.view(), err)
	}
	if err != nil {
		again := r.send(s)()
		if view := s.view(); view != r.after {
			r.t.Errorf("%s: the second try: %v, and gives\n%s", where, again, testkit.Diff(r.after, view))
		}
	}
	s.audit(where)
	if r.linked {
		s.auditLinks(where)
	}
	s.forget(nil)
	if n := s.o.nodes.Len(); n != 1 {
		r.t.Errorf("%s: %d nodes are left", where, n-1)
	}
	s.remount()
	s.wantEmptyWork(where)
	if d := testkit.Diff(r.after, s.view()); d != "" {
		r.t.Errorf("%s: after the second try and a remount:\n%s", where, d)
	}
	s.shut()
	return fired
}
