package e2e

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const opsPerSequence = 200

// failure matches the result of an operation that did nothing.
var failure = regexp.MustCompile(`^(open |write |read )?E[A-Z]+|^closed|^not a file`)

// sequence is a run on two mounts over identical layers: the left one is the kernel's overlayfs.
type sequence struct {
	t      *testing.T
	e      *env
	right  bool // the right side is the kernel's too: shows that the test itself is deterministic
	drawn  bool // both mounts get random options of the format
	tables []string
	ops    []op // filled while running, or given
	pause  int  // the mounts are remounted before this operation; -1 for never
	probe  bool // compare attributes after each operation
	worked int  // operations that did not fail
	over   bool // the sides differ on purpose, and more than can be taken back
}

// TestDifferential runs random operations on the program and on the kernel's overlayfs: the results, the merged trees
// and the uppers on disk must be the same, but for the deviations of the table in diff_compare_test.go.
func TestDifferential(t *testing.T) {
	needDaemon(t)
	eachMode(t, rootModes, func(t *testing.T, e *env) {
		n := 200
		if e.mode == modeUserns {
			n = 30
		}
		differential(t, e, false, n)
	})
}

// The options that change how the kernel and the program share the work must not change what is seen.
func TestDifferentialOptions(t *testing.T) {
	needDaemon(t)
	eachMode(t, onlyRoot, func(t *testing.T, e *env) {
		for _, opt := range []string{"writeback=1", "timeout=0", "volatile", "fsync=0", "max_write=8192", passthrough, "xattr_permissions=1", "xattr_permissions=2", shiftedIDs, redirects} {
			t.Run(opt, func(t *testing.T) {
				e := newEnv(t, e.mode)
				e.opts = []string{opt}
				n := 12
				switch opt {
				case passthrough:
					n = 60
				case "xattr_permissions=1", "xattr_permissions=2", shiftedIDs:
					n = 25
				case redirects:
					n = 60
				}
				differential(t, e, false, n)
			})
		}
	})
}

// TestDifferentialOfKernelWithItself shows that sequences are deterministic, with any options of the format.
func TestDifferentialOfKernelWithItself(t *testing.T) {
	eachMode(t, rootModes, func(t *testing.T, e *env) {
		differential(t, e, true, 10)
		if e.mode == modeRoot {
			differentialOf(t, e, sequence{right: true, drawn: true}, 20)
		}
	})
}

func envNumber(name string, otherwise uint64) uint64 {
	n, err := strconv.ParseUint(os.Getenv(name), 10, 64)
	if err != nil {
		return otherwise
	}
	return n
}

func differential(t *testing.T, e *env, kernelOnly bool, n int) {
	t.Helper()
	differentialOf(t, e, sequence{right: kernelOnly}, n)
}

// differentialOf runs sequences that are like a model.
func differentialOf(t *testing.T, e *env, model sequence, n int) {
	t.Helper()
	first, n := envNumber(envSeed, 1), int(envNumber(envSeqs, uint64(n)))
	t.Logf("seeds %d..%d, %d operations each; again with %s=SEED %s=1", first, first+uint64(n)-1, opsPerSequence, envSeed, envSeqs)
	runtime.LockOSThread() // operations of other users are made by this thread
	defer runtime.UnlockOSThread()
	failed, worked, made := 0, 0, 0
	for seed := first; seed < first+uint64(n); seed++ {
		g, s := newGenerator(seed, e.mode), model
		s.t, s.e, s.tables, s.pause, s.probe = t, e, g.layers(), -1, g.chance(60)
		if s.drawn {
			s.e = &env{mode: e.mode, dir: e.dir, opts: drawOptions(g)}
		}
		if e.has("xattr_permissions=2") {
			s.tables[0] = "" // else it would hold objects that no mount with the option makes
		}
		if g.chance(40) {
			s.pause = opsPerSequence / 2
		}
		diff := s.run(g)
		worked, made = worked+s.worked, made+len(s.ops)
		if diff == "" {
			continue
		}
		failed++
		if failed <= 3 {
			diff = s.shrink(diff)
		}
		t.Errorf("seed %d, options %v: %s\n%s", seed, s.e.opts, diff, &s)
		if failed == 8 {
			t.Fatal("too many failures, the rest is left out")
		}
	}
	t.Logf("%d of %d operations worked", worked, made)
	if failed == 0 && worked < made/2 {
		t.Error("too few: the sequences name too much that does not exist")
	}
}

// run makes the layers, runs the operations and compares; the answer tells the first difference.
// With a generator it makes the operations, without it runs those it has.
func (s *sequence) run(g *generator) string {
	s.t.Helper()
	dir, err := os.MkdirTemp(s.e.dir, "seq")
	check(s.t, err)
	defer removeTree(dir)
	left, right := s.side(dir, "kernel", true), s.side(dir, "ours", s.right)
	defer left.finish()
	defer right.finish()
	if g != nil {
		s.ops = nil
	}
	for i := 0; g != nil && i < opsPerSequence || g == nil && i < len(s.ops); i++ {
		if i == s.pause {
			left.remount()
			right.remount()
		}
		if g != nil {
			if i%8 == 0 {
				g.look(left.o.mnt)
			}
			s.ops = append(s.ops, g.op())
		}
		if diff := s.step(left, right, s.ops[i]); diff != "" {
			s.ops = s.ops[:i+1]
			return diff
		}
		if s.over {
			return ""
		}
	}
	return s.compareEnd(left, right)
}

func (s *sequence) step(left, right *side, o op) string {
	want, got := left.do(s.t, o), right.do(s.t, o)
	if s.over = want != got && parts(s.e, o, want, got, right); s.over {
		return ""
	}
	if want != got && !deviates(o, want, got) {
		return fmt.Sprintf("%s\n  kernel %s\n  ours   %s", o, want, got)
	}
	equalise(s.e, o, want, left, right)
	if !failure.MatchString(want) {
		s.worked++
	}
	if s.probe {
		if want, got := left.probe(o), right.probe(o); want != got {
			return fmt.Sprintf("attributes after %s\n  kernel %s\n  ours   %s", o, want, got)
		}
	}
	return ""
}

// compareEnd compares the merged trees, the uppers on disk, and the merged trees after a remount.
func (s *sequence) compareEnd(left, right *side) string {
	left.close()
	right.close()
	if d := compareMerged("merged tree", left, right); d != "" {
		return d
	}
	if !right.o.kernel {
		if d := identityFaults(right.o.mnt); d != "" {
			return "inode numbers: " + d
		}
	}
	left.o.unmount()
	right.o.unmount()
	indexed := slices.Contains(s.e.opts, "index=on")
	if !keepsOwnersElsewhere(s.e) && !indexed { // see lookAtIndex
		if d := compareUppers(s.e, left, right); d != "" {
			return d
		}
	}
	if indexed {
		want, fault := lookAtIndex(nil, left.o)
		got, fault2 := lookAtIndex(nil, right.o)
		if diff := fault + fault2 + diffLines(want, got); diff != "" {
			return "index:\n" + diff
		}
	}
	if !right.o.kernel {
		if rest := workRest(filepath.Join(right.o.work, "work")); len(rest) > 0 {
			return fmt.Sprintf("the work directory still holds %v", rest)
		}
	}
	left.mount()
	right.mount()
	if d := compareMerged("merged tree after a remount", left, right); d != "" || !s.drawn || right.o.kernel {
		return d
	}
	return s.swap(left, right)
}

// swap mounts what one side has written by the other.
func (s *sequence) swap(left, right *side) string {
	left.o.unmount()
	right.o.unmount()
	left.o.kernel, right.o.kernel = false, true
	left.mount()
	right.mount()
	return compareMerged("merged tree, mounted by the other side (the kernel mounts ours)", left, right)
}

// workRest lists what lies in a work directory besides empty directories and empty files (locks).
func workRest(work string) []string {
	var rest []string
	_ = filepath.WalkDir(work, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return nil
		}
		if info, err := d.Info(); err == nil && (!info.Mode().IsRegular() || info.Size() > 0) {
			rest = append(rest, strings.TrimPrefix(path, work))
		}
		return nil
	})
	return rest
}

func (s *sequence) side(dir, name string, kernel bool) *side {
	root := filepath.Join(dir, name)
	o := &overlay{t: s.t, env: &env{mode: s.e.mode, dir: root, opts: s.e.opts}, kernel: kernel, log: filepath.Join(root, "log"), opts: s.e.opts}
	if s.drawn {
		o.kernelOpts = kernelOptionsOf(s.e.opts)
	}
	o.upper, o.work, o.mnt = root+"/upper", root+"/work", root+"/mnt"
	mkdir(s.t, o.upper, o.work, o.mnt)
	build(s.t, s.e, o.upper, s.tables[0])
	for i, table := range s.tables[1:] {
		lower := fmt.Sprintf("%s/lower%d", root, i)
		mkdir(s.t, lower)
		build(s.t, s.e, lower, table)
		o.lowers = append(o.lowers, lower)
	}
	if s.e.has(shiftedIDs) && !kernel {
		for _, layer := range append([]string{o.upper}, o.lowers...) {
			shiftOwners(s.t, layer, idShift)
		}
	}
	o.mount()
	return newSide(o)
}

func (s *side) remount() {
	s.close()
	s.o.unmount()
	s.mount()
}

// mount mounts again, whatever a volatile mount has left.
func (s *side) mount() {
	s.o.forget()
	s.o.mount()
}

func (s *side) finish() {
	s.close()
	if s.o.isMounted() {
		s.o.unmount()
	}
}

// shrink leaves out operations and lines of layers as long as some difference remains.
func (s *sequence) shrink(diff string) string {
	budget := 150
	try := func(c *sequence) bool {
		budget--
		d := c.run(nil)
		if d == "" {
			return false
		}
		diff = d
		return true
	}
	s.ops = reduce(s.ops, &budget, func(ops []op) bool {
		c := *s
		c.ops, c.pause = append([]op(nil), ops...), min(s.pause, len(ops)/2)
		return try(&c)
	})
	s.pause = min(s.pause, len(s.ops)/2)
	for i := range s.tables {
		lines := reduce(strings.Split(s.tables[i], "\n"), &budget, func(lines []string) bool {
			c := *s
			c.tables = append([]string(nil), s.tables...)
			c.tables[i] = strings.Join(lines, "\n")
			return buildable(c.tables[i]) && try(&c)
		})
		s.tables[i] = strings.Join(lines, "\n")
	}
	return diff
}

// buildable tells whether the links of a table still have what they link to.
func buildable(table string) bool {
	have := map[string]bool{}
	for line := range strings.SplitSeq(table, "\n") {
		words, err := splitWords(line)
		if err != nil || len(words) < 2 {
			continue
		}
		switch words[0] {
		case "link":
			if !have[words[2]] {
				return false
			}
		case "own", "xattr", "time", "size":
			if !have[words[1]] {
				return false
			}
		}
		have[words[1]] = true
	}
	return true
}

// reduce drops ever smaller pieces of a list while the rest still fails.
func reduce[T any](list []T, budget *int, fails func([]T) bool) []T {
	for size := (len(list) + 1) / 2; size >= 1 && *budget > 0; size /= 2 {
		for at := 0; at < len(list) && *budget > 0; {
			end := min(at+size, len(list))
			rest := append(append([]T(nil), list[:at]...), list[end:]...)
			if fails(rest) {
				list = rest
			} else {
				at = end
			}
		}
	}
	return list
}

func (s *sequence) String() string {
	var b strings.Builder
	for i, table := range s.tables {
		name := "upper"
		if i > 0 {
			name = fmt.Sprintf("lower%d", i-1)
		}
		fmt.Fprintf(&b, "%s:\n    %s\n", name, strings.ReplaceAll(table, "\n", "\n    "))
	}
	for i, o := range s.ops {
		if i == s.pause {
			b.WriteString("  remount\n")
		}
		fmt.Fprintf(&b, "  %3d %s\n", i, o)
	}
	return strings.ReplaceAll(b.String(), strings.Repeat("n", 255), "LONG")
}
