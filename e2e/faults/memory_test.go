package faults

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

const (
	// envNames is the number of names of TestLittleMemory.
	envNames = "FUSE_OVERLAY_NAMES"
	// littleMemory is the memory of the daemon's cgroup.
	littleMemory = 48 * harness.MiB
	walkLimit    = 10 * time.Minute
)

// A daemon in a cgroup with little memory lives, whatever its clients do: they walk a tree of many
// names, whose inodes the kernel charges to them, and write and read large files.
func TestLittleMemory(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.OnlyRoot, func(t *testing.T, e *harness.Env) {
		names := int(harness.EnvNumber(envNames, 200_000))
		const inDir = 1000
		low := filepath.Join(e.Dir, "names") // a tmpfs: a million inodes fill a disk
		harness.Mkdir(t, low)
		harness.Check(t, unix.Mount("tmpfs", low, "tmpfs", 0, ""))
		t.Cleanup(func() {
			if err := unix.Unmount(low, unix.MNT_DETACH); err != nil {
				t.Error(err)
			}
		})
		for i := range names / inDir {
			d := fmt.Sprintf("%s/d%d", low, i)
			harness.Mkdir(t, d)
			harness.Write(t, d+"/name0", "text")
			for j := 1; j < inDir; j++ {
				harness.Check(t, unix.Mknod(fmt.Sprintf("%s/name%d", d, j), unix.S_IFREG|0o644, 0))
			}
		}
		c := newCgroup(t, "memory")
		c.set("memory.limit_in_bytes", "memory.max", fmt.Sprint(littleMemory))
		if c.v2 {
			c.set("", "memory.swap.max", "0")
		}
		o := e.Overlay(t, "dir d")
		o.Opts = nil
		o.Lowers = append(o.Lowers, low)
		c.hold(o)
		o.Mount()
		pid := o.PID
		var writers sync.WaitGroup
		text := strings.Repeat("0123456789abcdef", 1<<16) // 1 MiB
		for i := range 16 {
			writers.Go(func() {
				path := o.Path(fmt.Sprint("large", i))
				if err := writeLarge(path, text, 8); err != nil {
					t.Errorf("%s: %v", path, err)
				}
			})
		}
		o.StopWatchdog() // a million names take longer on a busy machine
		out, err := harness.RunIn(o.Point, nil, walkLimit, "sh", "-c", "find . -name 'name*' -size -2 | wc -l")
		writers.Wait()
		if found := strings.TrimSpace(out); err != nil || found != fmt.Sprint(names/inDir*inDir) {
			t.Errorf("find: %v, %s names, want %d", err, harness.Clip(found), names/inDir*inDir)
		}
		if n := c.number("memory.oom_control", "memory.events", "oom_kill "); n != 0 || !harness.Alive(pid) {
			t.Fatalf("the kernel has killed %d processes for want of memory", n)
		}
		t.Logf("%d names: at most %d KiB resident", names, residentPeak(t, pid))
		harness.WantText(t, o.Path("d1/name0"), "text")
		o.Remount()
		for i := range 16 {
			harness.WantText(t, o.Path(fmt.Sprint("large", i)), strings.Repeat(text, 8))
		}
	})
}

// residentPeak is the most memory that a process has had resident, in KiB.
func residentPeak(t *testing.T, pid int) (kib int64) {
	t.Helper()
	for line := range strings.Lines(harness.ReadText(t, fmt.Sprintf("/proc/%d/status", pid))) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			_, err := fmt.Sscan(rest, &kib)
			harness.Check(t, err)
		}
	}
	return kib
}

// writeLarge writes a file of a text that is repeated, one time with each call, and reads it.
func writeLarge(path, text string, times int) error {
	return withFile(path, os.O_CREATE|os.O_RDWR, func(fd int) error {
		for range times {
			if n, err := unix.Write(fd, []byte(text)); err != nil || n != len(text) {
				return fmt.Errorf("%d bytes are written: %w", n, err)
			}
		}
		got := make([]byte, len(text))
		for i := range times {
			n, err := unix.Pread(fd, got, int64(i*len(text)))
			if err != nil || string(got[:n]) != text {
				return fmt.Errorf("%d bytes are read, or others: %w", n, err)
			}
		}
		return nil
	})
}
