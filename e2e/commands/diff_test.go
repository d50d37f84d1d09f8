package commands

import (
	"path/filepath"
	"testing"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// Layers that were given by relative paths are found where the caller of the mount was.
func TestDiffOfRelativeLayers(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		sockets := useRuntimeDir(t, e)
		o := e.Overlay(t, "file changed \"x\"")
		t.Chdir(e.Dir)
		o.Lowers[0], o.Upper, o.Work = filepath.Base(o.Lowers[0]), filepath.Base(o.Upper), filepath.Base(o.Work)
		o.Mount()
		socketOf(t, sockets, o.Point)
		harness.Write(t, o.Path("changed"), "longer")
		r := command(t, "diff", o.Point, "--", "changed")
		if want := "M changed\tcontent,times\n"; r.code != 0 || r.out != want {
			t.Errorf("exit %d: %q %s, want %q", r.code, r.out, r.errs, want)
		}
	})
}
