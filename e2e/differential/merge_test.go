package differential

import (
	"fmt"
	"os"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
	"github.com/fuse-overlay/fuse-overlay/internal/testkit"
)

// A merge of the changes that random operations have made leaves the tree that a mount shows. Link
// counts are left out: the names that a broken link leaves in the lower count no more.
func TestMergeOfRandomChanges(t *testing.T) {
	harness.NeedDaemon(t)
	view := harness.NoLinksView
	view.Also = func(_ string, st *unix.Stat_t) string { return fmt.Sprint(" ", st.Mtim) }
	harness.EachMode(t, harness.OnlyRoot, func(t *testing.T, e *harness.Env) {
		runtime.LockOSThread() // operations of other users are made by this thread
		defer runtime.UnlockOSThread()
		first := harness.EnvNumber(harness.EnvSeed, 1)
		for seed := first; seed < first+harness.EnvNumber(harness.EnvSeqs, 25); seed++ {
			g := newGenerator(seed, e.Mode)
			s := sequence{t: t, tables: g.layers(), e: &harness.Env{Mode: e.Mode, Dir: e.Dir, Opts: drawOptions(g)}}
			dir, err := os.MkdirTemp(e.Dir, "merge")
			harness.Check(t, err)
			side := s.side(dir, "ours", harness.Ours)
			for i := range opsPerSequence {
				if i%8 == 0 {
					g.look(side)
				}
				side.Do(t, g.op())
			}
			side.Close()
			o := side.Overlay
			o.Remount()
			before, err := harness.Snapshot(o.Point, view)
			harness.Check(t, err)
			o.Unmount()
			args := []string{"merge", "--yes", "--workdir", o.Work}
			if s.e.Has("userxattr") {
				args = append(args, "-o", "userxattr")
			}
			out, err := harness.Run(harness.Program, append(append(args, o.Upper), o.Lowers...)...)
			if err != nil {
				t.Fatalf("seed %d, options %v: %v\n%s", seed, s.e.Opts, err, out)
			}
			testkit.Want(t, fmt.Sprintf("seed %d: the upper", seed), o.Upper, "")
			o.Mount()
			after, err := harness.Snapshot(o.Point, view)
			harness.Check(t, err)
			side.Finish()
			if diff := harness.DiffLines(before, after); diff != "" {
				t.Fatalf("seed %d, options %v, %d lowers:\n%s\nthe changes:\n%s", seed, s.e.Opts, len(o.Lowers), diff, out)
			}
			harness.RemoveTree(dir)
		}
	})
}
