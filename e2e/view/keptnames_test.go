package view

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// Without timeout=0 the daemon keeps the names of a directory (D62, xfstests overlay/012 and 034).
// The removal of an object that the upper has lost is ENOENT, and a name that a lower gets after
// the directory was listed is not found. The kernel's overlayfs has ESTALE, and finds the name.
func TestNamesThatChangeBelow(t *testing.T) {
	harness.EachMode(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		o := e.Mounted(t, "file dir/old text")
		harness.Write(t, o.Path("dir/lost"), "text")
		harness.Check(t, os.Remove(filepath.Join(o.Upper, "dir/lost")))
		lost := syscall.ENOENT
		if harness.Oracle {
			lost = syscall.ESTALE
		}
		harness.WantErr(t, "removal of a lost object", os.Remove(o.Path("dir/lost")), lost)
		harness.WantNames(t, o.Path("dir"), "old")
		harness.Write(t, filepath.Join(o.Lowers[0], "dir/new"), "text")
		_, err := os.Stat(o.Path("dir/new"))
		if !harness.Oracle {
			harness.WantErr(t, "a name that a lower has got", err, syscall.ENOENT)
			return
		}
		harness.Check(t, err)
	})
}
