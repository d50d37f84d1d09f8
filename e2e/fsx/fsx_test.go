package fsx

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

const envHelper = "FUSE_OVERLAY_FSX_HELPER"

func TestMain(m *testing.M) {
	if os.Getenv(envHelper) != "" {
		if err := Serve(os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, "fsx:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func helperCommand() *exec.Cmd {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), envHelper+"=1")
	return cmd
}

// onDisk is a run in a folder, which holds the files of the lower and serves as its own upper.
func onDisk(t *testing.T, seed uint64, rounds int) Config {
	t.Helper()
	// Tmpfs has neither O_DIRECT nor all modes of fallocate everywhere.
	dir, err := os.MkdirTemp("/var/tmp", "fuse-overlay-fsx-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := Prepare(dir, seed, 0, rounds); err != nil {
		t.Fatal(err)
	}
	missing, err := MissingModes(dir)
	if err != nil {
		t.Fatal(err)
	}
	return Config{
		Dir: dir, Lower: dir, Upper: dir, Seed: seed, Rounds: rounds, Helper: helperCommand, Align: pageSize,
		Missing: missing, Unmount: func() {}, Mount: func() {},
	}
}

// A correct file system passes, and a run makes every kind of operation.
func TestPassesOnADisk(t *testing.T) {
	cfg := onDisk(t, 1, 60)
	done, err := Run(cfg)
	if err != nil {
		t.Fatal(err)
	}
	for k := range kinds {
		if done.Ops[k.String()] == 0 && k != opDropAll && k != opFallocate {
			t.Errorf("no %v in %d operations", k, done.Total)
		}
	}
	for _, m := range modes {
		if done.Ops["fallocate "+m.name] == 0 {
			t.Errorf("no fallocate in mode %s in %d operations", m.name, done.Total)
		}
	}
	if err := done.CheckKept(cfg.Dir); err != nil {
		t.Error(err)
	}
	appends := onDisk(t, 2, 3)
	appends.Appends = true
	if _, err := Run(appends); err != nil {
		t.Error(err)
	}
}

// A run finds lost and wrong data, and the failure names round, operation and bytes.
func TestNoticesDamage(t *testing.T) {
	for _, c := range []struct {
		name string
		kind kind
		want string
		do   func(fd int, o *op) error
	}{
		{"a byte of a write is lost", opWrite, "differ", func(fd int, o *op) error { return poke(fd, o.Off+o.Len/2, 0) }},
		{"the last byte of an append is lost", opAppend, "differ",
			func(fd int, o *op) error { return poke(fd, o.Off+o.Len-1, 0) }},
		{"a byte written by a mapping is lost", opMapWrite, "differ",
			func(fd int, o *op) error { return poke(fd, o.Off, 0) }},
		{"a byte written by a kept mapping is lost", opKeptWrite, "differ",
			func(fd int, o *op) error { return poke(fd, o.Off, 0) }},
		{"a copied byte is lost", opCopy, "differ", func(fd int, o *op) error { return poke(fd, o.Off, 0) }},
		{"a range is not zeroed", opFallocate, "differ", func(fd int, o *op) error {
			if o.Flags&(unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_ZERO_RANGE) == 0 {
				return nil
			}
			return poke(fd, o.Off, 'x')
		}},
		{"a file is longer than it was truncated to", opFtruncate, "want",
			func(fd int, o *op) error { return unix.Ftruncate(fd, o.Len+1) }},
		{"a file is shorter than it was truncated to", opTruncate, "want",
			func(fd int, o *op) error { return unix.Ftruncate(fd, max(0, o.Len-1)) }},
		{"a close loses the end", opClose, "", func(fd int, _ *op) error {
			var st unix.Stat_t
			if err := unix.Fstat(fd, &st); err != nil || st.Size == 0 {
				return err
			}
			return unix.Ftruncate(fd, st.Size-1)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := onDisk(t, 3, 20)
			made := 0
			cfg.spoil = func(o *op, path string) {
				if o.Kind != c.kind {
					return
				}
				if made++; made%7 != 0 { // not the first, that others follow
					return
				}
				fd, err := unix.Open(path, unix.O_RDWR, 0)
				if err != nil {
					t.Error(err)
					return
				}
				defer unix.Close(fd)
				if err := c.do(fd, o); err != nil {
					t.Error(err)
				}
			}
			_, err := Run(cfg)
			var f *Failure
			if !errors.As(err, &f) {
				t.Fatalf("the run has not found it: %v", err)
			}
			if !strings.Contains(f.What.Error(), c.want) || len(f.Log) == 0 || !strings.Contains(err.Error(), "seed 3, round") {
				t.Errorf("the failure is %v", err)
			}
			// The same failure again, by the number of the round alone.
			made, cfg.First, cfg.Rounds = 0, f.Round, 1
			if _, err := Run(cfg); err == nil {
				t.Errorf("round %d alone passes", f.Round)
			}
		})
	}
}

// poke changes one byte within a file.
func poke(fd int, off int64, b byte) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || off >= st.Size {
		return err
	}
	_, err := unix.Pwrite(fd, []byte{b}, off)
	return err
}

// A mode of fallocate that works although it should be missing is a failure, and so is one that
// does not work. MissingModes returns one at least, which no file system has.
func TestNoticesModesOfFallocate(t *testing.T) {
	for _, missing := range [][]int{nil, {0, unix.FALLOC_FL_PUNCH_HOLE}} {
		cfg := onDisk(t, 6, 20)
		cfg.Missing = missing
		var f *Failure
		if _, err := Run(cfg); !errors.As(err, &f) || !strings.Contains(f.What.Error(), "fallocate") {
			t.Errorf("with the modes %v missing: %v", missing, err)
		}
	}
}

// A remount that loses the last byte of a file is noticed in the upper and in the mount.
func TestNoticesDamageByARemount(t *testing.T) {
	for _, at := range []string{"unmount", "mount"} {
		cfg := onDisk(t, 7, 40)
		spoil := func() {
			names, err := filepath.Glob(cfg.Dir + "/r*-new*")
			if err != nil {
				t.Error(err)
			}
			for _, name := range names {
				if st, err := os.Stat(name); err == nil && st.Size() > 0 {
					if err := os.Truncate(name, st.Size()-1); err != nil {
						t.Error(err)
					}
				}
			}
		}
		if at == "unmount" {
			cfg.Unmount = spoil
		} else {
			cfg.Mount = spoil
		}
		_, err := Run(cfg)
		var f *Failure
		if !errors.As(err, &f) {
			t.Errorf("damage at the %s: %v", at, err)
			continue
		}
		const check = 12 // operations that compare all files
		if last := f.Log[len(f.Log)-check-1:]; !strings.Contains(strings.Join(last, "\n"), "remount") {
			t.Errorf("damage at the %s is found later: %v", at, err)
		}
	}
}

// A run compares the upper too.
func TestNoticesADamagedUpper(t *testing.T) {
	cfg := onDisk(t, 4, 4)
	cfg.Upper = t.TempDir()
	if _, err := Run(cfg); !errors.Is(err, unix.ENOENT) {
		t.Errorf("an upper without the files: %v", err)
	}
}

// Operations depend on nothing but the seed and the number of the round.
func TestSameSeedSameOperations(t *testing.T) {
	logs := map[string]bool{}
	for range 2 {
		cfg := onDisk(t, 5, 2)
		var log strings.Builder
		cfg.spoil = func(o *op, path string) { fmt.Fprintln(&log, o, filepath.Base(path)) }
		if _, err := Run(cfg); err != nil {
			t.Fatal(err)
		}
		logs[log.String()] = true
	}
	if len(logs) != 1 {
		t.Error("two runs of one seed differ")
	}
}
