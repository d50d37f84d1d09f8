package changes

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// Whatever an upper changes: its layer by diff --tar, unpacked by apply and mounted as the topmost
// lower, shows what the upper has shown.
func TestRoundTrip(t *testing.T) {
	harness.NeedDaemon(t)
	for _, f := range forms {
		t.Run(f.name, func(t *testing.T) {
			harness.EachMode(t, f.modes, func(t *testing.T, e *harness.Env) {
				for seed := range seeds {
					s := newSite(t, harness.NewEnv(t, e.Mode), f, lowerTable+f.table, "file old/x \"below\"\nfile d/z \"below\"\ndir d/a/more")
					s.Mount()
					newWorker(t, s.Point, seed+1000, e.Mode != harness.ModeFusermount).work(80)
					s.Unmount()
					s.wantRoundTrip()
				}
			})
		})
	}
}

// wantRoundTrip mounts the layer of the upper in the place of the upper.
func (s *site) wantRoundTrip() {
	s.t.Helper()
	s.Mount()
	want, err := harness.Snapshot(s.Point, exact())
	harness.Check(s.t, err)
	s.Unmount()
	archive, lower := s.Env.Dir+"/layer.tar", s.Env.Dir+"/applied"
	harness.Write(s.t, archive, s.diff("--tar"))
	args := []string{"apply", archive, lower}
	if out, err := exec.Command(harness.Program, args...).CombinedOutput(); err != nil || len(out) > 0 {
		s.t.Fatalf("apply: %v\n%s", err, out)
	}
	upper, lowers := s.Upper, s.Lowers
	s.Upper, s.Lowers = "", append([]string{lower}, lowers...)
	s.Mount()
	got, err := harness.Snapshot(s.Point, exact())
	harness.Check(s.t, err)
	s.Unmount()
	s.Upper, s.Lowers = upper, lowers
	if d := harness.DiffLines(want, got); d != "" {
		s.t.Errorf("the mount of the layer differs:\n%s\nchanges:\n%s", d, s.diff())
	}
	harness.Check(s.t, os.Remove(archive))
	harness.RemoveTree(lower)
	if left, err := filepath.Glob(s.Env.Dir + "/.applied*"); err != nil || len(left) > 0 {
		s.t.Errorf("apply has left %q (%v)", left, err)
	}
}
