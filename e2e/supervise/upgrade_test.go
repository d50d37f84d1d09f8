package supervise

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// TestUpgrade replaces the program of a mount by one with another version, and by a file that is no
// program, while a file is open.
func TestUpgrade(t *testing.T) {
	goTool, err := exec.LookPath("go")
	if err != nil {
		t.Skip("go is missing")
	}
	harness.EachMode(t, modes[:1], func(t *testing.T, e *harness.Env) {
		if harness.Oracle {
			t.Skip("the kernel's overlayfs has no daemon")
		}
		bin := filepath.Join(e.Dir, "bin")
		harness.Mkdir(t, bin)
		program := filepath.Join(bin, "fuse-overlay")
		build := func(version, to string) {
			c := exec.Command(goTool, "build", "-ldflags", "-X github.com/fuse-overlay/fuse-overlay/internal/version.linked="+version,
				"-o", to, "github.com/fuse-overlay/fuse-overlay/cmd/fuse-overlay")
			c.Env = append(os.Environ(), "CGO_ENABLED=0")
			if out, err := c.CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
		}
		build("first-build", program)
		o := e.Overlay(t, "file f f\nfile gone gone\n")
		o.Opts = append(o.Opts, "supervise", "sandbox=off")
		if out, err := harness.Run(program, "-o", o.MountOptions(), o.Point); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		daemons := func() []int { return harness.ProcessesOf(program) }
		t.Cleanup(func() {
			_ = unix.Unmount(o.Point, unix.MNT_DETACH)
			harness.Eventually(10*time.Second, func() bool { return len(daemons()) == 0 })
		})
		gone, err := os.Open(o.Path("gone"))
		harness.Check(t, err)
		defer gone.Close()
		harness.Check(t, unix.Unlink(o.Path("gone")))
		look := func(version string) {
			t.Helper()
			text := make([]byte, 4)
			if _, err := gone.ReadAt(text, 0); string(text) != "gone" {
				t.Errorf("the unlinked file: %q, %v", text, err)
			}
			if text, err := os.ReadFile(o.Path("f")); string(text) != "f" {
				t.Errorf("f: %q, %v", text, err)
			}
			if out, err := harness.Run(harness.Program, "stats", "--json", o.Point); err != nil || !strings.Contains(out, version) {
				t.Errorf("the version is not %s: %v\n%s", version, err, out)
			}
		}
		upgrade := func() {
			t.Helper()
			if out, err := harness.Run(harness.Program, "upgrade", o.Point); err != nil {
				t.Fatalf("upgrade: %v: %s", err, out)
			}
		}
		look("first-build")
		next := filepath.Join(bin, "next")
		build("second-build", next)
		harness.Check(t, os.Rename(next, program))
		upgrade()
		look("second-build")
		harness.Check(t, os.WriteFile(next, []byte("no program"), 0o755))
		harness.Check(t, os.Rename(next, program))
		upgrade()
		look("second-build")
		gone.Close()
	})
}

// TestUpgradeRefused: the signal would end a mount without the option.
func TestUpgradeRefused(t *testing.T) {
	harness.EachMode(t, modes[:1], func(t *testing.T, e *harness.Env) {
		o := e.Mounted(t, "file f f\n")
		out, err := harness.Run(harness.Program, "upgrade", o.Point)
		if err == nil || !strings.Contains(out+err.Error(), "supervise") {
			t.Errorf("upgrade: %v: %s", err, out)
		}
		if text, err := os.ReadFile(o.Path("f")); string(text) != "f" {
			t.Errorf("f: %q, %v", text, err)
		}
	})
}

// TestConflicts: what would not survive the daemon is refused with the option.
func TestConflicts(t *testing.T) {
	harness.EachMode(t, modes[:1], func(t *testing.T, e *harness.Env) {
		for _, opt := range []string{"timeout=0", "index=on", "metacopy=on", "redirect_dir=on", "strictatime"} {
			o := e.Overlay(t)
			o.Lowers = []string{o.Upper + "-lower"}
			harness.Mkdir(t, o.Lowers[0])
			o.Opts = append(o.Opts, "supervise", "sandbox=off", opt)
			program, args := o.Command()
			if out, err := harness.Run(program, args...); err == nil || !strings.Contains(out+err.Error(), "conflicting options: supervise,"+opt) {
				t.Errorf("%s: %v: %s", opt, err, out)
			}
			harness.Check(t, os.Remove(o.Lowers[0]))
			for _, dir := range []string{o.Upper, o.Work, o.Point} {
				harness.Check(t, os.Remove(dir))
			}
		}
	})
}
