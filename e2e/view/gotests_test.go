package view

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// goPackages are packages of Go's library whose own tests use files, and the tests of each that do
// not run here: one fails on every FUSE file system (D38), two make a million calls.
var goPackages = map[string]string{
	"io/fs":         "^$",
	"os":            "^(TestNonpollableDeadline|TestRootMultiLink|TestRootMultiRename)$",
	"path/filepath": "^$",
}

// goTestOf is the compiled test of a package, which every user can run.
func goTestOf(pkg string) string {
	return filepath.Join(harness.RunDir, strings.ReplaceAll(pkg, "/", "-")+".test")
}

// TestGo runs the tests of Go's own packages with their temporary files in a merged directory. make
// test-conformance runs those of all packages that use files, and the compiler in the mount.
func TestGo(t *testing.T) {
	root, err := exec.Command("go", "env", "GOROOT").Output()
	harness.Check(t, err)
	source := filepath.Join(strings.TrimSpace(string(root)), "src")
	for pkg := range goPackages {
		if harness.InChild() {
			break // the parent has compiled them
		}
		cmd := exec.Command("go", "test", "-c", "-o", goTestOf(pkg), pkg)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("compiling %s: %v\n%s", pkg, err, out)
		}
	}
	harness.EachPolicy(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		// The paths are short, because the tests make sockets there.
		o := e.Mounted(t, "dir t 1777\nfile t/beside")
		for pkg, skip := range goPackages {
			t.Run(pkg, func(t *testing.T) {
				cmd := exec.Command(goTestOf(pkg), "-test.short", "-test.skip="+skip, "-test.timeout=2m")
				cmd.Dir = filepath.Join(source, pkg)
				// Without the command go the tests that compile programs are skipped.
				cmd.Env = append(os.Environ(), "TMPDIR="+o.Path("t"), "PATH=/usr/sbin:/usr/bin:/sbin:/bin")
				if out, err := cmd.CombinedOutput(); err != nil {
					t.Errorf("%v\n%s", err, harness.Clip(string(out)))
				}
			})
		}
		harness.WantNames(t, o.Path("t"), "beside")
	})
}
