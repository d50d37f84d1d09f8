package kills

import (
	"bytes"
	"encoding/gob"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// killsOfSeries is how often a series kills.
const killsOfSeries = 4

// TestKills kills the daemon some times in each mode, or FUSE_OVERLAY_KILLS times. The options
// follow from a seed.
func TestKills(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		n := int(harness.EnvNumber(envKills, someKills))
		seed := harness.EnvNumber(harness.EnvSeed, uint64(time.Now().UnixNano())&0xffffff)
		var all counts
		for ; all.kills < n; seed++ {
			t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
				s := newSeries(t, e.Mode, seed)
				t.Logf("again with %s=%d %s=%d; options %v, whiteouts of form %d", harness.EnvSeed, seed, envKills, killsOfSeries,
					s.e.Opts, s.form)
				for round := range killsOfSeries {
					s.round(round)
					if t.Failed() {
						return
					}
				}
				all.add(s.counts)
			})
			if t.Failed() {
				return
			}
		}
		t.Logf("%d kills under load, %d operations; of those in flight %d were done and %d were not; %d kills of a mount; "+
			"the kernel showed the layers %d times", all.kills, all.ops, all.done, all.undone, all.mounting, all.kernel)
		const many = 100 // of few kills, all may come between two operations
		if all.ops < 3*all.kills || n >= many && (all.done == 0 || all.undone == 0) {
			t.Error("there was too little work")
		}
	})
}

// round mounts, kills the daemon under load, and checks what is left.
func (s *series) round(number int) {
	s.t.Helper()
	seed := s.Uint64()
	s.mount()
	outcomes := s.killUnderLoad(number, seed)
	s.o.Crash()
	s.counts.kills++

	foreign, err := foreignNames(s.o.Upper)
	harness.Check(s.t, err)
	if len(foreign) > 0 {
		s.t.Errorf("round %d: the upper has names that no user has made: %q", number, foreign)
	}
	var before, after []*tree
	var flying []op
	s.history = nil
	for id, done := range outcomes {
		b, a, o := s.replay(id, seed, done.Done)
		before, after, flying = append(before, b), append(after, a), append(flying, o)
		s.counts.ops += done.Done
	}
	for _, finding := range s.check() {
		if _, place, _ := strings.Cut(finding, "\t"); !strings.HasPrefix(place, "work:") && !s.isRest(finding, flying) {
			s.t.Errorf("round %d: check finds, before the next mount: %s\nin flight: %v", number, finding, flying)
		}
	}
	options, byKernel := s.kernelOptions()
	var first []bool
	if byKernel && !s.index {
		s.inKernel(options, func(point string) { first = s.resolve("the kernel, at once", point, before, after, flying) })
	}
	if s.chance(30) {
		s.killWhileMounting()
	}
	s.mount()
	choice := s.resolve("the next mount", s.o.Point, before, after, flying)
	if first != nil && !s.t.Failed() && !slices.Equal(first, choice) {
		s.t.Errorf("round %d: the kernel and the next mount differ in what of %v was done", number, flying)
	}
	s.o.Unmount()
	if rest := harness.WorkRest(filepath.Join(s.o.Work, "work")); len(rest) > 0 {
		s.t.Errorf("round %d: the work directory still holds %v", number, rest)
	}
	findings := s.check()
	if slices.ContainsFunc(findings, func(f string) bool { return s.isRest(f, flying) }) {
		s.check("--repair", "--yes")
		findings = s.check()
	}
	if len(findings) > 0 {
		s.t.Errorf("round %d: check finds %q; in flight: %v", number, findings, flying)
	}
	if s.t.Failed() {
		return
	}
	if byKernel {
		s.inKernel(options, func(point string) { s.resolve("the kernel, after the next mount", point, s.trees, s.trees, flying) })
	}
}

// killUnderLoad starts the processes, kills the daemon after a random time, and returns what the
// processes report.
func (s *series) killUnderLoad(number int, seed uint64) []outcome {
	s.t.Helper()
	var cmds []*exec.Cmd
	var outs []*bytes.Buffer
	for id := range processes + 1 {
		task := task{Root: s.o.Point, Seed: seed, ID: id, Policy: &s.p, Walk: id == processes}
		if !task.Walk {
			task.Tree = s.trees[id]
		}
		file := filepath.Join(s.e.Dir, fmt.Sprintf("task%d-%d", number, id))
		var text bytes.Buffer
		harness.Check(s.t, gob.NewEncoder(&text).Encode(task))
		harness.Check(s.t, os.WriteFile(file, text.Bytes(), 0o600))
		self, err := os.Executable()
		harness.Check(s.t, err)
		cmd, out := exec.Command(self), &bytes.Buffer{}
		cmd.Env = append(os.Environ(), envWorker+"="+file)
		cmd.Stdout, cmd.Stderr = out, out
		harness.Check(s.t, cmd.Start())
		cmds, outs = append(cmds, cmd), append(outs, out)
	}
	time.Sleep(time.Duration(50+s.IntN(500)) * time.Millisecond)
	harness.Kill(s.o.PID, syscall.SIGKILL)
	const limit = 60 * time.Second
	ended := make(chan error, 1)
	go func() {
		var errs []error
		for _, cmd := range cmds {
			errs = append(errs, cmd.Wait())
		}
		ended <- errors.Join(errs...)
	}()
	var outcomes []outcome
	select {
	case err := <-ended:
		if err != nil {
			s.t.Fatalf("round %d: %v\n%s", number, err, outs)
		}
	case <-time.After(limit):
		harness.AbortConnection(s.o.Minor)
		s.t.Fatalf("round %d: a process hangs after the death of the daemon", number)
	}
	for id := range processes {
		var o outcome
		if err := json.Unmarshal(outs[id].Bytes(), &o); err != nil || o.Error != "" {
			s.t.Fatalf("round %d, process %d: %v %s\n%s", number, id, err, o.Error, outs[id])
		}
		outcomes = append(outcomes, o)
	}
	return outcomes
}

// killWhileMounting kills the program that mounts, and the daemon that it starts, after a random
// time. Then the layers have been opened, the work directory was being swept, or the mount was just
// made.
func (s *series) killWhileMounting() {
	s.t.Helper()
	program, args := s.o.Command()
	cmd := exec.Command(program, args...)
	s.o.ForgetVolatile()
	s.withMarkers(func() { harness.Check(s.t, cmd.Start()) })
	time.Sleep(time.Duration(s.IntN(40)) * time.Millisecond)
	ended := harness.Eventually(10*time.Second, func() bool {
		pids := harness.DaemonsOf(s.o.Point)
		for _, pid := range pids {
			harness.Kill(pid, syscall.SIGKILL)
		}
		return len(pids) == 0
	})
	_ = cmd.Wait() // it was killed, or it has ended before
	if !ended {
		s.t.Fatalf("the program that mounts on %s has not ended", s.o.Point)
	}
	for s.o.IsMounted() {
		harness.Check(s.t, s.o.Detach())
	}
	s.counts.mounting++
}

// replay returns the tree of a process after its operations, that with the operation in flight as
// well, and this operation.
func (s *series) replay(id int, seed uint64, done int) (before, after *tree, flying op) {
	before = s.trees[id].copy()
	g := newGenerator(seed, id, before, &s.p)
	s.history = append(s.history, nil)
	for range done {
		o := g.next()
		before.apply(&o, &s.p, false)
		s.history[id] = append(s.history[id], o)
	}
	flying = g.next()
	after = before.copy()
	after.apply(&flying, &s.p, true)
	return before, after, flying
}

// resolve compares a mount with the trees of each process. It makes the one that is there the tree
// of the process, and returns for each whether that is the tree after the operation in flight.
func (s *series) resolve(what, point string, before, after []*tree, flying []op) (choice []bool) {
	s.t.Helper()
	have, err := look(point, s.metacopy && point != s.o.Point)
	if err != nil {
		s.t.Errorf("%s: %v", what, err)
		return nil
	}
	resolved := make([]*tree, len(before))
	for id := range before {
		mine := have[fmt.Sprint(id)]
		notBefore, notAfter := compare(before[id], mine), compare(after[id], mine)
		switch {
		case len(notBefore) == 0:
			resolved[id], choice = before[id].copy(), append(choice, false)
		case len(notAfter) == 0:
			resolved[id], choice = after[id].copy(), append(choice, true)
		case s.form == xattrs && flying[id].Kind == "rename" && len(compare(before[id].between(&flying[id]), mine)) == 0:
			resolved[id], choice = before[id].between(&flying[id]), append(choice, true)
		default:
			s.t.Errorf("%s, process %d, in flight: %s\nother than before:\n  %s\nother than after:\n  %s", what, id, flying[id],
				harness.Clip(strings.Join(notBefore, "\n  ")), harness.Clip(strings.Join(notAfter, "\n  ")))
			for i, o := range s.history[id] {
				s.t.Logf("operation %d: %s", i, o)
			}
			return nil
		}
		resolved[id].adopt(mine)
	}
	if point == s.o.Point {
		s.trees = resolved
		for _, done := range choice {
			if done {
				s.counts.done++
			} else {
				s.counts.undone++
			}
		}
	}
	return choice
}
