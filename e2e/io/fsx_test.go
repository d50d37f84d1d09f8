package io

import (
	"errors"
	"os"
	"os/exec"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/e2e/fsx"
	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// envFsx is set for a process that makes operations for package fsx.
const envFsx = "FUSE_OVERLAY_E2E_FSX"

func serveFsx(string) error { return fsx.Serve(os.Stdin, os.Stdout) }

const (
	envFsxOps   = "FUSE_OVERLAY_FSX_OPS"   // operations of TestFsx in all
	envFsxRound = "FUSE_OVERLAY_FSX_ROUND" // the only round that is run, to repeat a failure

	// fsxOps is the number of operations of TestFsx by default.
	fsxOps = 400_000
)

// fsxCase is one row of TestFsx: how the kernel handles data, and a format.
type fsxCase struct {
	name  string
	opts  []string
	modes []harness.Mode
}

var fsxCases = []fsxCase{
	{"default", nil, harness.AllModes},
	{"writeback=1", []string{"writeback=1"}, harness.AllModes},
	{"writeback=0", []string{"writeback=0"}, harness.AllModes},
	{"writeback=0, new files cached", []string{"writeback=0", "disable=direct_io"}, harness.OnlyRoot},
	{"passthrough", []string{harness.Passthrough}, harness.OnlyRoot},
	{"timeout=0", []string{"timeout=0"}, harness.AllModes},
	{"default, metacopy", []string{"metacopy=on"}, harness.AllModes},
	{"writeback=0, metacopy", []string{"writeback=0", "metacopy=on"}, harness.OnlyRoot},
	{"passthrough, metacopy", []string{harness.Passthrough, "metacopy=on"}, harness.OnlyRoot},
	{"default, index and volatile", []string{"index=on", "volatile"}, harness.RootModes},
}

// fsxRuns is the number of runs of TestFsx, which share its operations.
func fsxRuns() (runs int) {
	for _, c := range fsxCases {
		runs += len(c.modes)
	}
	return runs
}

// No byte and no size is lost or wrong after random operations by several descriptors, mappings and
// processes. 400,000 operations are shared by all I/O policies and all kinds of mounts.
func TestFsx(t *testing.T) {
	seed := harness.EnvNumber(harness.EnvSeed, uint64(time.Now().UnixNano()))
	ops := harness.EnvNumber(envFsxOps, fsxOps)
	for _, c := range fsxCases {
		t.Run(c.name, func(t *testing.T) {
			harness.NeedPassthrough(t, c.opts...)
			harness.EachMode(t, c.modes, func(t *testing.T, e *harness.Env) {
				if harness.Oracle && (len(c.opts) > 0 || e.Mode == harness.ModeFusermount) {
					t.Skip("an option of this program")
				}
				e.Opts = c.opts
				const most = 300 // rounds of one mount
				rounds := int(ops)/fsxRuns()/fsx.OpsOfRound + 1
				if os.Getenv(envFsxRound) != "" {
					runFsx(t, e, fsx.Config{Seed: seed, First: int(harness.EnvNumber(envFsxRound, 0)), Rounds: 1})
					return
				}
				for first := 0; first < rounds && !t.Failed(); first += most {
					runFsx(t, newEnvLike(t, e), fsx.Config{Seed: seed, First: first, Rounds: min(most, rounds-first)})
				}
			})
		})
	}
}

// newEnvLike is an Env with a fresh folder and the options of e.
func newEnvLike(t *testing.T, e *harness.Env) *harness.Env {
	t.Helper()
	fresh := harness.NewEnv(t, e.Mode)
	fresh.Opts = e.Opts
	return fresh
}

// runFsx makes the rounds of cfg on a mount. It then checks the files in the upper and in another
// mount of it.
func runFsx(t *testing.T, e *harness.Env, cfg fsx.Config) {
	t.Helper()
	o, err := fsxOn(t, e, &cfg)
	harness.Check(t, err)
	begin := time.Now()
	done, err := fsx.Run(cfg)
	var failure *fsx.Failure
	switch {
	case errors.As(err, &failure):
		t.Errorf("again with %s=%d %s=%d: %v", harness.EnvSeed, cfg.Seed, envFsxRound, failure.Round, failure)
		return
	case err != nil:
		t.Error(err)
		return
	}
	took := time.Since(begin)
	t.Logf("%d operations in %v, %d µs each; among them %d remounts, %d killed processes", done.Total,
		took.Round(time.Millisecond), took.Microseconds()/int64(done.Total), done.Ops["remount"], done.Ops["restart"])
	if cfg.Rounds < 2 {
		return
	}
	o.Unmount()
	if err := done.CheckChanged(o.Upper); err != nil {
		t.Errorf("in the upper, seed %d: %v", cfg.Seed, err)
	}
	cfg.Mount()
	if err := done.CheckKept(o.Point); err != nil {
		t.Errorf("after a remount, seed %d: %v", cfg.Seed, err)
	}
	o.Unmount()
}

// fsxOn mounts an overlay for the rounds of cfg, and completes cfg.
func fsxOn(t *testing.T, e *harness.Env, cfg *fsx.Config) (*harness.Overlay, error) {
	t.Helper()
	o := e.Overlay(t, "")
	if err := fsx.Prepare(o.Lowers[0], cfg.Seed, cfg.First, cfg.Rounds); err != nil {
		return nil, err
	}
	o.Mount()
	cfg.Dir, cfg.Lower, cfg.Upper, cfg.Helper, cfg.Align = o.Point, o.Lowers[0], o.Upper, fsxHelper, 1
	cfg.Missing = missingModes(t)
	cfg.Unmount, cfg.Mount = o.Unmount, func() {
		o.ForgetVolatile()
		o.Mount()
	}
	cfg.DropCaches = e.Mode == harness.ModeRoot
	switch {
	case harness.Oracle:
		missing, err := fsx.MissingModes(o.Point)
		if err != nil {
			return nil, err
		}
		cfg.WriteFirst, cfg.Align, cfg.Missing = 1, 4096, missing // D3
	case e.Has(harness.Passthrough):
		cfg.WriteFirst, cfg.Align = 128<<10, 4096 // D19
	case e.Has("writeback=0"), e.Has("timeout=0"):
		cfg.WriteBackFirst = mayLoseAppends(t)
	}
	return o, nil
}

func fsxHelper() *exec.Cmd {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), envFsx+"=1")
	return cmd
}

// missingModes are the modes of fallocate that the mount does not have (D45, D50).
func missingModes(t *testing.T) []int {
	t.Helper()
	missing := fsx.MissingOnFUSE()
	if !harness.KernelAtLeast(t, 5, 15) {
		missing = append(missing, unix.FALLOC_FL_ZERO_RANGE, unix.FALLOC_FL_ZERO_RANGE|unix.FALLOC_FL_KEEP_SIZE)
	}
	return missing
}

// mayLoseAppends reports whether the kernel loses appended data without the writeback cache. Linux
// 6.17 and later zero it if the last page is dirty through a mapping and is written back at the
// same time.
func mayLoseAppends(t *testing.T) bool {
	t.Helper()
	return harness.KernelAtLeast(t, 6, 17)
}

// Only the operations in which kernels lose data: files grow by small pieces, while their last page
// is dirty through a mapping and other processes open, sync and close them. On a kernel with the
// fault writeback=0 must fail, because otherwise TestFsx would not find the loss either. All other
// modes must pass.
func TestFsxAppends(t *testing.T) {
	harness.Raced(t)
	seed := harness.EnvNumber(harness.EnvSeed, uint64(time.Now().UnixNano()))
	for _, opt := range []string{"default", "writeback=1", "writeback=0", harness.Passthrough} {
		t.Run(opt, func(t *testing.T) {
			harness.NeedPassthrough(t, opt)
			modes := harness.AllModes
			if opt == harness.Passthrough {
				modes = harness.OnlyRoot
			}
			harness.EachMode(t, modes, func(t *testing.T, e *harness.Env) {
				if opt != "default" {
					harness.NeedDaemon(t)
					e.Opts = []string{opt}
				}
				cfg := fsx.Config{Seed: seed, Rounds: 30}
				_, err := fsxOn(t, e, &cfg)
				harness.Check(t, err)
				affected := cfg.WriteBackFirst
				cfg.WriteBackFirst, cfg.Appends = false, true
				_, err = fsx.Run(cfg)
				var failure *fsx.Failure
				switch {
				case affected && errors.As(err, &failure):
					t.Logf("the fault of this kernel, as expected: round %d, %v", failure.Round, failure.What)
				case affected:
					t.Errorf("this kernel loses data with writeback=0, but the run has not found it: %v", err)
				case err != nil:
					t.Errorf("again with %s=%d: %v", harness.EnvSeed, seed, err)
				}
			})
		})
	}
}
