package commands

import (
	"encoding/json"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// checkLayers runs fuse-overlay check on the layers of o.
func checkLayers(o *harness.Overlay, flags ...string) (out string, code int) {
	args := append([]string{"check", "--workdir", o.Work}, flags...)
	out, err := harness.Run(harness.Program, append(append(args, o.Upper), o.Lowers...)...)
	return out, harness.ExitCode(err)
}

func wantCheck(t *testing.T, what string, o *harness.Overlay, wantOut string, wantCode int, flags ...string) {
	t.Helper()
	if out, code := checkLayers(o, flags...); out != wantOut || code != wantCode {
		t.Errorf("%s: exit code %d, want %d; output:\n%swant:\n%s", what, code, wantCode, out, wantOut)
	}
}

// A check of what the program itself has written finds nothing. What is damaged on purpose is found
// and repaired, but not while the layers are mounted.
func TestCheck(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		o := e.Mounted(t, harness.BusyTree, "file usr/lib/below\nfile etc/below")
		harness.Shell(t, o.Point, harness.Busywork)
		out, code := checkLayers(o, "--repair", "--yes")
		if code != 1 || !strings.Contains(out, "in use by the mount on") || !strings.Contains(out, o.Point) {
			t.Errorf("a repair of mounted layers: exit code %d\n%s", code, out)
		}
		if out, code = checkLayers(o); code != 0 || strings.Count(out, "\n") != 1 || !strings.Contains(out, "in use by a mount of fuse-overlay") {
			t.Errorf("a check of mounted layers: exit code %d\n%s", code, out)
		}
		o.Unmount()
		wantCheck(t, "after the unmount", o, "", 0)

		harness.Check(t, unix.Mknod(filepath.Join(o.Upper, "new", "never"), unix.S_IFCHR, 0))
		const line = "orphan whiteout\tupper:new/never\tno layer below has the directory that it is in, so it hides nothing\n"
		wantCheck(t, "an orphan whiteout", o, line, 1)
		out, code = checkLayers(o, "--json")
		var found []struct{ Kind, Layer, Path, Meaning, Repair string }
		if err := json.Unmarshal([]byte(out), &found); err != nil || code != 1 || len(found) != 1 || found[0].Path != "new/never" || found[0].Repair == "" {
			t.Errorf("--json: exit code %d, %v:\n%s", code, err, out)
		}
		if out, code = checkLayers(o, "--repair"); code != 2 || !strings.Contains(out, "--yes") {
			t.Errorf("--repair without a terminal: exit code %d\n%s", code, out)
		}
		wantCheck(t, "the repair", o, line+"  repair: remove the name\n", 0, "--repair", "--yes")
		wantCheck(t, "after the repair", o, "", 0)
		o.Mount()
	})
}

// A mount of the kernel's overlayfs keeps repairs out, too, and what it leaves is whole.
func TestCheckOfTheKernels(t *testing.T) {
	harness.EachMode(t, harness.RootModes, func(t *testing.T, e *harness.Env) {
		o := e.Overlay(t, harness.BusyTree)
		o.Kernel = true
		o.Mount()
		harness.Shell(t, o.Point, harness.Busywork)
		if out, code := checkLayers(o, "--repair", "--yes"); code != 1 || !strings.Contains(out, "in use by the kernel's overlayfs") {
			t.Errorf("a repair of mounted layers: exit code %d\n%s", code, out)
		}
		o.Unmount()
		wantCheck(t, "after the unmount", o, "", 0)
	})
}

// A check of what fuse-overlayfs has written finds nothing.
func TestCheckOfFuseOverlayfs(t *testing.T) {
	harness.EachMode(t, harness.OnlyRoot, func(t *testing.T, e *harness.Env) {
		other, err := exec.LookPath("fuse-overlayfs")
		if err != nil {
			t.Skip("not applicable on this machine: fuse-overlayfs is not installed")
		}
		o := e.Overlay(t, harness.BusyTree, "file usr/lib/below\nfile etc/below")
		for _, script := range []string{harness.Busywork, harness.WorkAtDepth[1]} {
			if out, err := harness.Run(other, "-o", o.Lowerdir()+",upperdir="+o.Upper+",workdir="+o.Work, o.Point); err != nil {
				t.Fatalf("fuse-overlayfs: %v\n%s", err, out)
			}
			harness.Shell(t, o.Point, script)
			harness.Check(t, harness.UnmountAt(o.Point))
			if !harness.Eventually(10*time.Second, func() bool { out, _ := checkLayers(o); return out == "" }) {
				wantCheck(t, "after the unmount", o, "", 0)
			}
		}
	})
}
