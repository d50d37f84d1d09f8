package posix

import (
	"fmt"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
	"github.com/fuse-overlay/fuse-overlay/e2e/operation"
)

// tick is longer than the kernel's clock of times of files stands still.
const tick = 20 * time.Millisecond

// runRows runs each row on a lower's objects and on the upper's, in each mode and I/O policy.
func runRows(t *testing.T, rows []row) {
	t.Helper()
	harness.EachPolicy(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		o := e.Overlay(t, "dir lower 0755\ndir upper 0755")
		cases := casesOf(rows, e.Mode)
		for _, c := range cases {
			if c.layer == inLower {
				c.build(t, e, o.Lowers[0])
			}
		}
		o.Mount()
		for _, c := range cases {
			if c.layer == inUpper {
				c.build(t, e, o.Point)
			}
		}
		time.Sleep(tick)
		side := operation.NewSide(o)
		for _, c := range cases {
			t.Run(c.name(), func(t *testing.T) { c.run(t, side) })
		}
	})
}

// A rowCase is a row with a layer and a folder.
type rowCase struct {
	row
	layer layer
	dir   string
	mode  harness.Mode
}

func casesOf(rows []row, m harness.Mode) (cases []rowCase) {
	for i, r := range rows {
		if m == harness.ModeFusermount && (r.by != owner || r.root != "") {
			continue // a plain user can be no other user
		}
		if m != harness.ModeRoot && r.device() {
			continue // only root of the first user namespace makes devices
		}
		for _, l := range []layer{inLower, inUpper} {
			if r.only == "" || r.only == l {
				cases = append(cases, rowCase{r, l, fmt.Sprintf("%s/%d", l, i), m})
			}
		}
	}
	return cases
}

func (c rowCase) name() string {
	text := c.do
	if len(c.tree) > 0 {
		text += " with " + strings.Join(strings.Fields(c.tree+" "+c.root), " ")
	}
	return fmt.Sprintf("%s/%v %s", c.layer, c.by, strings.ReplaceAll(text, "/", "|"))
}

// as runs fn as a caller. As a plain user the test is the owner.
func (c rowCase) as(t *testing.T, who caller, fn func()) {
	t.Helper()
	if c.mode == harness.ModeFusermount || who == root {
		fn()
		return
	}
	harness.As(t, ids[who][0], ids[who][1], fn)
}

// build makes the tree below the root of a layer, or of the mount.
func (c rowCase) build(t *testing.T, e *harness.Env, base string) {
	t.Helper()
	dir := filepath.Join(base, c.dir)
	harness.Mkdir(t, dir)
	if c.mode != harness.ModeFusermount {
		harness.Check(t, unix.Chown(dir, ids[owner][0], ids[owner][1]))
	}
	c.as(t, owner, func() { harness.Build(t, e, dir, long.Replace(c.tree)) })
	if c.root != "" {
		harness.Build(t, e, dir, long.Replace(c.root))
	}
}

// run makes the call and compares its result and what it leaves.
func (c rowCase) run(t *testing.T, side *operation.Side) {
	op := parse(t, c.dir, c.do)
	dir := side.Overlay.Path(c.dir)
	before := snapshot(t, dir)
	var got string
	c.as(t, c.by, func() { got = side.Run(op) })
	if got == operation.SizeUnchanged {
		got = "ok"
	}
	harness.Equal(t, "result", got, c.want)
	c.compare(t, before, snapshot(t, dir))
}

// snapshot returns the attributes of all objects below a folder, by path.
func snapshot(t *testing.T, dir string) map[string]unix.Stat_t {
	t.Helper()
	all := map[string]unix.Stat_t{}
	harness.Check(t, filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		all[rel] = harness.Lstat(t, path)
		return err
	}))
	return all
}

// compare compares what the call has left with the row.
func (c rowCase) compare(t *testing.T, before, after map[string]unix.Stat_t) {
	t.Helper()
	times := map[string]string{}
	for _, word := range strings.Fields(long.Replace(c.times)) {
		name, changed, _ := strings.Cut(word, ":")
		times[name] = changed
	}
	listed := map[string]bool{}
	for _, word := range strings.Fields(long.Replace(c.after)) {
		name, gone := strings.CutPrefix(word, "-")
		if !gone {
			name = name[:endOfName(name)]
		}
		listed[name] = true
		st, exists := after[name]
		if exists == gone {
			t.Errorf("%s exists: %v", name, exists)
		} else if !gone {
			wantState(t, name, word[len(name):], st)
		}
	}
	for name, st := range after {
		old, existed := before[name]
		if !existed && !listed[name] {
			t.Errorf("the call made %s", name)
		}
		if !existed {
			continue
		}
		if got, want := state(st), state(old); got != want && !listed[name] {
			t.Errorf("%s is %s after the call, and was %s", name, got, want)
		}
		wantTime(t, name+": st_mtime", old.Mtim, st.Mtim, strings.Contains(times[name], "m"))
		// A directory's copy in the upper is a new object with an st_ctime of its own (D4).
		copied := c.layer == inLower && c.want == "ok" && st.Mode&unix.S_IFMT == unix.S_IFDIR
		if strings.Contains(times[name], "c") || !copied && !strings.Contains(times[name], "C") {
			wantTime(t, name+": st_ctime", old.Ctim, st.Ctim, strings.Contains(times[name], "c"))
		}
	}
	for name := range before {
		if _, exists := after[name]; !exists && !listed[name] {
			t.Errorf("the call removed %s", name)
		}
	}
}

// endOfName is the length of the name at the begin of a word of after.
func endOfName(word string) int {
	if i := strings.IndexAny(word, "=@#"); i >= 0 {
		return i
	}
	return len(word)
}

// wantState compares an object with the conditions of a word of after.
func wantState(t *testing.T, name, conditions string, st unix.Stat_t) {
	t.Helper()
	for conditions != "" {
		end := 1 + endOfName(conditions[1:])
		value := conditions[1:end]
		switch conditions[0] {
		case '=':
			mode, err := strconv.ParseUint(value, 8, 32)
			harness.Check(t, err)
			harness.Equal(t, name+": mode", fmt.Sprintf("%#o", st.Mode&0o7777), fmt.Sprintf("%#o", mode))
		case '@':
			harness.Equal(t, name+": owner", fmt.Sprintf("%d:%d", st.Uid, st.Gid), value)
		case '#':
			harness.Equal(t, name+": links", strconv.Itoa(int(st.Nlink)), value)
		}
		conditions = conditions[end:]
	}
}

// state is what a call leaves alone unless after lists the object. Sizes and link counts of
// directories differ between file systems (D1, D4).
func state(st unix.Stat_t) string {
	s := fmt.Sprintf("%#o %d:%d", st.Mode, st.Uid, st.Gid)
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		s += fmt.Sprintf(" %d bytes, %d links", st.Size, st.Nlink)
	}
	return s
}

func wantTime(t *testing.T, what string, old, now unix.Timespec, changes bool) {
	t.Helper()
	if changed := old != now; changed != changes {
		t.Errorf("%s changes: %v, want %v", what, changed, changes)
	}
}
