package faults

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// A kill at any moment leaves each file in its old or new state, and the next mount removes the
// rest.
func TestCrashThenRemount(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		content := strings.Repeat("0123456789abcde\n", 8192) // 128 KiB
		var table strings.Builder
		const n = 120
		for i := range n {
			fmt.Fprintf(&table, "file d%d/f%d 0644 %q\n", i%7, i, content)
		}
		r := rand.New(rand.NewPCG(3, 4))
		o := e.Overlay(t, table.String())
		for round := range 6 {
			o.Mount()
			stop := make(chan struct{})
			done := make(chan struct{})
			go func() { // errors are expected once the daemon is gone
				defer close(done)
				for i := 0; ; i++ {
					select {
					case <-stop:
						return
					default:
					}
					k := i % n
					p := fmt.Sprintf("%s/d%d/f%d", o.Point, k%7, k)
					switch i % 4 {
					case 0:
						_ = os.Chmod(p, 0o600)
					case 1:
						_ = os.WriteFile(p+".new", []byte("replaced"), 0o644)
						_ = os.Rename(p+".new", p)
					case 2:
						_ = os.Remove(p)
					case 3:
						_ = os.Mkdir(p+".dir", 0o755)
						_ = os.Rename(p, p+".dir/moved")
					}
				}
			}()
			time.Sleep(time.Duration(r.IntN(40)) * time.Millisecond)
			harness.Kill(o.PID, syscall.SIGKILL)
			close(stop)
			select {
			case <-done:
			case <-time.After(20 * time.Second):
				t.Fatal("a system call hangs after the death of the daemon")
			}
			o.Crash()
			o.Mount()
			checkCrashed(t, o, content, n)
			o.Unmount()
			if rest := harness.WorkRest(o.Work); len(rest) > 0 {
				t.Errorf("round %d: the work directory still holds %v", round, rest)
			}
		}
		harness.CompareTrees(t, "the lower", o.Lowers[0], rebuilt(t, e, table.String()), harness.ExactView)
	})
}

// rebuilt builds a table again, for comparison.
func rebuilt(t *testing.T, e *harness.Env, table string) string {
	dir := filepath.Join(e.Dir, "rebuilt")
	harness.Mkdir(t, dir)
	harness.Build(t, e, dir, table)
	return dir
}

// checkCrashed accepts whole old files, whole replacements and absent files.
func checkCrashed(t *testing.T, o *harness.Overlay, content string, n int) {
	t.Helper()
	for k := range n {
		p := fmt.Sprintf("%s/d%d/f%d", o.Point, k%7, k)
		for _, path := range []string{p, p + ".dir/moved"} {
			text, err := os.ReadFile(path)
			if os.IsNotExist(err) {
				continue
			}
			harness.Check(t, err)
			// The replacement was renamed without fsync. So it may be empty, as on a plain file system.
			if s := string(text); s != content && s != "replaced" && s != "" {
				t.Errorf("%s holds %d bytes that were never written: %s", path, len(s), harness.Brief(s))
			}
		}
	}
}

// Data is in the upper after fsync and a kill.
func TestSyncedDataSurvivesAKill(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		o := e.Mounted(t, "file low \"lower\"")
		for _, name := range []string{"low", "new"} {
			f := harness.Open(t, o.Path(name), os.O_RDWR|os.O_CREATE|os.O_APPEND)
			_, err := f.WriteString("synced")
			harness.Check(t, err)
			harness.Check(t, f.Sync())
		}
		closed := harness.Open(t, o.Path("closed"), os.O_RDWR|os.O_CREATE)
		_, err := closed.WriteString("closed")
		harness.Check(t, err)
		harness.Check(t, closed.Close()) // close writes back
		o.Crash()
		o.Mount()
		harness.WantText(t, o.Path("low"), "lowersynced")
		harness.WantText(t, o.Path("new"), "synced")
		harness.WantText(t, o.Path("closed"), "closed")
	})
}

// Requests to a killed daemon fail and do not hang. Its mount can be unmounted.
func TestDeadDaemonIsAnError(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		o := e.Mounted(t, "file f \"x\"")
		harness.Kill(o.PID, syscall.SIGKILL)
		harness.WaitGone(o.PID, 5*time.Second)
		_, err := os.ReadDir(o.Point)
		harness.WantErr(t, "listing", err, syscall.ENOTCONN, syscall.ECONNABORTED)
		o.Crash()
		o.Mount()
		harness.WantText(t, o.Path("f"), "x")
	})
}
