package differential

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
	"github.com/fuse-overlay/fuse-overlay/e2e/operation"
	"github.com/fuse-overlay/fuse-overlay/internal/testkit"
)

const opsPerSequence = 200

// sequence is a run of operations on two mounts of identical layers. The left one is the kernel's
// overlayfs.
type sequence struct {
	t      *testing.T
	e      *harness.Env
	right  harness.Implementation // of the right side; Kernel shows that the test itself is deterministic
	drawn  bool                   // both mounts get random options of the format
	tables []string
	ops    []operation.Op // filled while running, or given
	pause  int            // the mounts are remounted before this operation; -1 for never
	probe  bool           // compare attributes after each operation
	worked int            // operations that did not fail
	covers *coverage      // counts those operations, and the situations that they meet
	over   bool           // the sides differ by a deviation that cannot be reverted
}

// TestDifferential runs random operations on the program and on the kernel's overlayfs: the
// results, the merged trees and the uppers on disk must be the same, but for the deviations of the
// table in compare_test.go.
func TestDifferential(t *testing.T) {
	harness.Raced(t)
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.RootModes, func(t *testing.T, e *harness.Env) {
		n := 200
		if e.Mode == harness.ModeUserns {
			n = 30
		}
		differential(t, e, harness.Ours, n)
	})
}

// The options that change how the kernel and the program share the work do not change what the
// mount shows.
func TestDifferentialOptions(t *testing.T) {
	harness.Raced(t)
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.OnlyRoot, func(t *testing.T, e *harness.Env) {
		for _, opt := range []string{"writeback=1", "timeout=0", "volatile", "fsync=0", "max_write=8192", "writeback=0",
			harness.Passthrough, "xattr_permissions=1", "xattr_permissions=2", shiftedIDs, harness.Redirects} {
			t.Run(opt, func(t *testing.T) {
				harness.NeedPassthrough(t, opt)
				e := harness.NewEnv(t, e.Mode)
				e.Opts = []string{opt}
				n := 12
				switch opt {
				case harness.Passthrough:
					n = 30
				case "xattr_permissions=1", "xattr_permissions=2", shiftedIDs:
					n = 25
				case harness.Redirects:
					n = 30
				}
				differential(t, e, harness.Ours, n)
			})
		}
	})
}

// TestDifferentialOfKernelWithItself shows that sequences are deterministic, with any options of
// the format.
func TestDifferentialOfKernelWithItself(t *testing.T) {
	harness.EachMode(t, harness.RootModes, func(t *testing.T, e *harness.Env) {
		differential(t, e, harness.Kernel, 10)
		if e.Mode == harness.ModeRoot {
			differentialOf(t, e, sequence{right: harness.Kernel, drawn: true}, 20)
		}
	})
}

// differential runs n sequences with the options of e.
func differential(t *testing.T, e *harness.Env, right harness.Implementation, n int) {
	t.Helper()
	differentialOf(t, e, sequence{right: right}, n)
}

// differentialOf runs n sequences that are copies of a model.
func differentialOf(t *testing.T, e *harness.Env, model sequence, n int) {
	t.Helper()
	first, n := harness.EnvNumber(harness.EnvSeed, 1), int(harness.EnvNumber(harness.EnvSeqs, uint64(n)))
	t.Logf("seeds %d..%d, %d operations each; again with %s=SEED %s=1", first, first+uint64(n)-1, opsPerSequence,
		harness.EnvSeed, harness.EnvSeqs)
	runtime.LockOSThread() // operations of other users are made by this thread
	defer runtime.UnlockOSThread()
	failed, worked, made := 0, 0, 0
	covers := &coverage{worked: map[string]int{}}
	for seed := first; seed < first+uint64(n); seed++ {
		g, s := newGenerator(seed, e.Mode), model
		s.t, s.e, s.tables, s.pause, s.probe, s.covers = t, e, g.layers(), -1, g.chance(60), covers
		if s.drawn {
			s.e = &harness.Env{Mode: e.Mode, Dir: e.Dir, Opts: drawOptions(g)}
		}
		if e.Has("xattr_permissions=2") {
			s.tables[0] = "" // else it would hold objects that no mount with the option makes
		}
		if g.chance(40) {
			s.pause = opsPerSequence / 2
		}
		covers.begin()
		diff := s.run(g)
		s.covers = nil // not those of shrinking
		worked, made = worked+s.worked, made+len(s.ops)
		if diff == "" {
			continue
		}
		failed++
		if failed <= 3 {
			diff = s.shrink(diff)
		}
		t.Errorf("seed %d, options %v: %s\n%s", seed, s.e.Opts, diff, &s)
		if failed == 8 {
			t.Fatal("too many failures, the rest is left out")
		}
	}
	t.Logf("%d of %d operations worked", worked, made)
	if failed == 0 && worked < made/2 {
		t.Error("too few: the sequences name too much that does not exist")
	}
	if failed == 0 && first == 1 && n >= countedFrom {
		covers.check(t)
	}
}

// run makes the layers, runs the operations and returns the first difference. With a generator it
// makes the operations. Without one it runs those of the sequence.
func (s *sequence) run(g *generator) string {
	s.t.Helper()
	dir, err := os.MkdirTemp(s.e.Dir, "seq")
	harness.Check(s.t, err)
	defer harness.RemoveTree(dir)
	left, right := s.side(dir, "kernel", harness.Kernel), s.side(dir, "ours", s.right)
	defer left.Finish()
	defer right.Finish()
	if g != nil {
		s.ops = nil
	}
	for i := 0; g != nil && i < opsPerSequence || g == nil && i < len(s.ops); i++ {
		if i == s.pause {
			left.Remount()
			right.Remount()
			s.covers.begin()
		}
		if g != nil {
			if i%8 == 0 {
				g.look(left)
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

func (s *sequence) step(left, right *operation.Side, o operation.Op) string {
	met := s.covers.meet(left, o)
	want, got := left.Do(s.t, o), right.Do(s.t, o)
	if s.over = want != got && diverges(s.e, o, want, got, right); s.over {
		return ""
	}
	if want != got && !deviates(o, want, got) {
		return fmt.Sprintf("%s\n  kernel %s\n  ours   %s", o, want, got)
	}
	writeMappedBack(s.t, s.e, o, left, right)
	equalise(s.e, o, want, left, right)
	if !operation.Failure.MatchString(want) {
		s.worked++
		s.covers.add(left, o, met)
	}
	if s.probe {
		if want, got := left.Probe(o), right.Probe(o); want != got {
			return fmt.Sprintf("attributes after %s\n  kernel %s\n  ours   %s", o, want, got)
		}
	}
	return ""
}

// compareEnd compares the merged trees, the uppers on disk, and the merged trees after a remount.
func (s *sequence) compareEnd(left, right *operation.Side) string {
	left.Close()
	right.Close()
	if d := compareMerged("merged tree", left, right); d != "" {
		return d
	}
	if !right.Overlay.Kernel {
		if d := harness.IdentityFaults(right.Overlay.Point); d != "" {
			return "inode numbers: " + d
		}
	}
	left.Overlay.Unmount()
	right.Overlay.Unmount()
	indexed := slices.Contains(s.e.Opts, "index=on")
	if !keepsOwnersElsewhere(s.e) && !indexed { // see indexKinds
		if d := compareUppers(s.e, left, right); d != "" {
			return d
		}
	}
	if indexed {
		want, fault := harness.IndexKinds(left.Overlay)
		got, fault2 := harness.IndexKinds(right.Overlay)
		if diff := fault + fault2 + harness.DiffLines(want, got); diff != "" {
			return "index:\n" + diff
		}
	}
	if !right.Overlay.Kernel {
		if rest := harness.WorkRest(filepath.Join(right.Overlay.Work, "work")); len(rest) > 0 {
			return fmt.Sprintf("the work directory still holds %v", rest)
		}
	}
	left.Mount()
	right.Mount()
	if d := compareMerged("merged tree after a remount", left, right); d != "" || !s.drawn || right.Overlay.Kernel {
		return d
	}
	return s.swap(left, right)
}

// swap mounts the upper of each side by the other implementation.
func (s *sequence) swap(left, right *operation.Side) string {
	left.Overlay.Unmount()
	right.Overlay.Unmount()
	left.Overlay.Kernel, right.Overlay.Kernel = false, true
	left.Mount()
	right.Mount()
	return compareMerged("merged tree, mounted by the other side (the kernel mounts ours)", left, right)
}

// side makes the layers of one side and mounts them.
func (s *sequence) side(dir, name string, by harness.Implementation) *operation.Side {
	root := filepath.Join(dir, name)
	o := &harness.Overlay{T: s.t, Env: &harness.Env{Mode: s.e.Mode, Dir: root, Opts: s.e.Opts},
		Kernel: by == harness.Kernel, Log: filepath.Join(root, "log"), Opts: s.e.Opts}
	if s.drawn {
		o.KernelOpts = kernelOptionsOf(s.e.Opts)
	}
	o.Upper, o.Work, o.Point = root+"/upper", root+"/work", root+"/mnt"
	harness.Mkdir(s.t, o.Upper, o.Work, o.Point)
	harness.Build(s.t, s.e, o.Upper, s.tables[0])
	for i, table := range s.tables[1:] {
		lower := fmt.Sprintf("%s/lower%d", root, i)
		harness.Mkdir(s.t, lower)
		harness.Build(s.t, s.e, lower, table)
		o.Lowers = append(o.Lowers, lower)
	}
	if s.e.Has(shiftedIDs) && !o.Kernel {
		for _, layer := range append([]string{o.Upper}, o.Lowers...) {
			shiftOwners(s.t, layer, idShift)
		}
	}
	o.Mount()
	return operation.NewSide(o)
}

// shrink leaves out operations and lines of layers while a difference remains.
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
	s.ops = reduce(s.ops, &budget, func(ops []operation.Op) bool {
		c := *s
		c.ops, c.pause = append([]operation.Op(nil), ops...), min(s.pause, len(ops)/2)
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

// buildable reports whether the objects that the lines of a table refer to are in it.
func buildable(table string) bool {
	have := map[string]bool{}
	for line := range strings.SplitSeq(table, "\n") {
		words, err := testkit.Words(line)
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

// reduce leaves out pieces of a list, smaller and smaller ones, while the rest still fails.
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
