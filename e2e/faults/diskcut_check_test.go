package faults

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/fuse-overlay/fuse-overlay/e2e/disklog"
	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// checkCuts checks the disk after each of n cuts.
func (c *diskCut) checkCuts(n int) {
	c.t.Helper()
	const sideBySide = 8
	player, err := disklog.NewPlayer(c.start, c.log)
	harness.Check(c.t, err)
	cuts, flushes := disklog.Choose(c.log, n, c.r), 0
	for _, e := range c.log {
		if e.Kind == disklog.Flush {
			flushes++
		}
	}
	c.t.Run("cuts", func(t *testing.T) {
		for part := range slices.Chunk(cuts, (n+sideBySide-1)/sideBySide) {
			t.Run("", func(t *testing.T) {
				t.Parallel()
				w := *c
				w.use(t, c.e.Mode)
				w.checkPart(player.Fork(), part)
			})
		}
	})
	c.t.Logf("%d steps, %d requests of the disk, %d of them flushes; %d cuts; %d of %d states found, %d disks refused",
		len(c.steps), len(c.log), flushes, len(cuts), len(c.found.states), len(c.states), c.found.refused)
	if len(c.found.states) == 0 && c.found.refused == 0 {
		c.t.Error("no cut was checked")
	}
}

// checkPart checks the disk after each of some cuts.
func (c *diskCut) checkPart(player *disklog.Player, cuts []disklog.Cut) {
	c.t.Helper()
	for i, cut := range cuts {
		image := filepath.Join(c.memory, fmt.Sprintf("cut%d-%d", cut.Entries, cut.Seed))
		harness.Check(c.t, player.WriteImage(cut, image))
		c.check(i%2 == 0, cut, image)
		harness.Check(c.t, os.Remove(image))
		if c.t.Failed() {
			c.t.Fatalf("cut %+v", cut)
		}
	}
}

// allowed returns the numbers of the first and the last state that a tree may have after a cut.
func (c *diskCut) allowed(cut disklog.Cut) (first, last int) {
	for _, text := range cut.Marks(c.log) {
		var word string
		var step int
		if _, err := fmt.Sscan(text, &word, &step); err != nil {
			c.t.Fatal(err)
		}
		if word == markBegun {
			last = step
		} else {
			first = step
		}
	}
	return first, last
}

// check checks the disk after a cut. The side that mounts first finds what the cut has left.
func (c *diskCut) check(kernelFirst bool, cut disklog.Cut, image string) {
	c.t.Helper()
	first, last := c.allowed(cut)
	harness.Check(c.t, c.mountDisk(image))
	if c.isUsable(first == last) {
		for _, c.o.Kernel = range []bool{kernelFirst, !kernelFirst} {
			c.checkMount(first, last)
		}
		c.o.Kernel = false
		c.checkNames()
	}
	c.unmountDisk(image)
	out, err := harness.RunIn("", nil, diskLimit, c.kind.check[0], append(slices.Clone(c.kind.check[1:]), image)...)
	if err != nil {
		c.t.Errorf("%v: %v\n%s", c.kind.check, err, harness.Clip(out))
	}
}

// checkMount mounts, and fails the test unless the mount shows one of states[first:last+1].
func (c *diskCut) checkMount(first, last int) {
	c.t.Helper()
	if out, err := c.o.TryMount(); err != nil {
		c.t.Errorf("mounting, by the kernel %v: %v\n%s", c.o.Kernel, err, out)
		return
	}
	state, fault := nearest(c.states, first, last, c.o.Point, c.view)
	if fault != "" {
		c.t.Errorf("mounted by the kernel %v: %s", c.o.Kernel, fault)
	}
	c.found.Lock()
	c.found.states[state]++
	c.found.Unlock()
	c.o.Unmount()
	if rest := c.workRest(); !c.o.Kernel && len(rest) > 0 {
		c.t.Errorf("the work directory still holds %v", rest)
	}
}

// isUsable reports whether the layers can be mounted. If a volatile mount or a merge has left its
// note, both sides refuse the work directory, and the same merge completes its work. ended: the
// last step has ended before the cut.
func (c *diskCut) isUsable(ended bool) bool {
	c.t.Helper()
	note := filepath.Join(c.o.Work, "work", "incompat")
	if _, err := os.Lstat(note); err != nil {
		return true
	}
	c.found.Lock()
	c.found.refused++
	c.found.Unlock()
	if isMerge := c.s.command == "merge"; !isMerge && !c.s.volatile || isMerge && ended {
		c.t.Errorf("there is %s", note)
	}
	for _, c.o.Kernel = range []bool{true, false} {
		if _, err := c.o.TryMount(); err == nil {
			c.t.Errorf("mounted by the kernel %v in spite of %s", c.o.Kernel, note)
			c.o.Unmount()
		}
	}
	if c.s.volatile {
		return false
	}
	if out, err := c.runCommand(); err != nil {
		c.t.Errorf("completing the merge: %v\n%s", err, out)
		return false
	}
	return true
}

// workRest lists what lies in the work directory besides the index.
func (c *diskCut) workRest() []string {
	return slices.DeleteFunc(harness.WorkRest(c.o.Work), func(path string) bool { return strings.HasPrefix(path, "/index/") })
}

// checkNames fails the test if a layer has a name that no user has given.
func (c *diskCut) checkNames() {
	c.t.Helper()
	for _, layer := range append([]string{c.o.Upper}, c.o.Lowers...) {
		harness.Check(c.t, filepath.WalkDir(layer, func(path string, _ fs.DirEntry, err error) error {
			if path != layer && !c.names[filepath.Base(path)] {
				c.t.Errorf("%s is left in a layer", path)
			}
			return err
		}))
	}
}
