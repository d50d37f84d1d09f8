package view

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// Many processes work at the same time. Nothing hangs, no file is half written, and a remount shows
// the same tree.
func TestConcurrentUse(t *testing.T) {
	harness.Raced(t)
	harness.EachIO(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		var low, mid strings.Builder
		for i := range 200 {
			fmt.Fprintf(&low, "file d%d/s%d/f%d %q\n", i%4, i%3, i, strings.Repeat("low", 1000))
			fmt.Fprintf(&mid, "file d%d/s%d/g%d \"mid\"\n", i%5, i%2, i)
		}
		o := e.Mounted(t, mid.String(), low.String())
		stop := time.Now().Add(1500 * time.Millisecond)
		var wg sync.WaitGroup
		for worker := range 8 {
			wg.Go(func() { disturb(o.Point, rand.New(rand.NewPCG(7, uint64(worker))), worker, stop) })
		}
		done := make(chan struct{})
		go func() { wg.Wait(); close(done) }()
		select {
		case <-done:
		case <-time.After(60 * time.Second):
			if o.PID != 0 {
				harness.AbortConnection(o.Minor)
			}
			t.Fatal("the workers hang")
		}
		want, err := harness.Snapshot(o.Point, harness.ExactView)
		harness.Check(t, err)
		if d := harness.IdentityFaults(o.Point); d != "" && !harness.Oracle {
			t.Error(harness.Clip(d))
		}
		o.Remount()
		got, err := harness.Snapshot(o.Point, harness.ExactView)
		harness.Check(t, err)
		if d := harness.DiffLines(want, got); d != "" {
			t.Errorf("a remount shows something else:\n%s", harness.Clip(d))
		}
		for p, line := range got {
			if strings.HasPrefix(line, "file") && strings.HasSuffix(p, ".whole") && !strings.Contains(line, `"whole"`) {
				t.Errorf("a file that was whole before its rename: %s", line)
			}
		}
	})
}

// disturb makes random changes. Each may fail, because other processes make theirs at the same
// time.
func disturb(root string, r *rand.Rand, worker int, stop time.Time) {
	place := func() string { return fmt.Sprintf("%s/d%d/s%d", root, r.IntN(5), r.IntN(3)) }
	for i := 0; time.Now().Before(stop); i++ {
		dir, other := place(), place()
		name := fmt.Sprintf("%s/%c%d", dir, 'f'+rune(r.IntN(2)), r.IntN(200))
		own := fmt.Sprintf("%s/w%d-%d", dir, worker, r.IntN(20))
		switch r.IntN(14) {
		case 0:
			_ = os.Chmod(name, 0o600)
		case 1:
			_ = harness.AppendErr(name)
		case 2:
			_ = os.Remove(name)
		case 3:
			if os.WriteFile(own+".tmp", []byte("whole"), 0o644) == nil {
				_ = os.Rename(own+".tmp", fmt.Sprintf("%s/n%d.whole", other, r.IntN(30)))
			}
		case 4:
			_ = os.Rename(name, filepath.Join(other, filepath.Base(name)))
		case 5:
			_ = os.Mkdir(own+".d", 0o755)
			_ = os.WriteFile(own+".d/x", []byte("x"), 0o644)
		case 6:
			_ = os.RemoveAll(own + ".d")
		case 7:
			_ = os.RemoveAll(dir)
		case 8:
			_ = os.MkdirAll(dir, 0o755)
		case 9:
			_, _ = os.ReadDir(dir)
		case 10:
			_, _ = os.ReadFile(name)
		case 11:
			_ = os.Link(name, own+".link")
		case 12:
			_ = unix.Renameat2(unix.AT_FDCWD, own+".d", unix.AT_FDCWD, name, unix.RENAME_EXCHANGE)
		case 13:
			_ = unix.Setxattr(name, "user.w", []byte{byte(i)}, 0)
		}
	}
}
