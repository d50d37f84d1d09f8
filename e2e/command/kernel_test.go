package command

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// mountedLine are the fields of the line "mounted" about the kernel.
type mountedLine struct {
	Whiteouts string   `json:"whiteouts"`
	IO        string   `json:"io"`
	Missing   []string `json:"not in this kernel"`
	Without   []string `json:"done without"`
}

func readMountedLine(t *testing.T, o *harness.Overlay) (line mountedLine) {
	t.Helper()
	for text := range strings.Lines(harness.ReadText(t, o.Log)) {
		if strings.Contains(text, `"msg":"mounted"`) {
			harness.Check(t, json.Unmarshal([]byte(text), &line))
			return line
		}
	}
	t.Fatal("the log has no line about the mount")
	return line
}

// The line of the log names each feature that this kernel lacks, and the mount does what it does
// without: this is the table of docs/KERNELS.md.
func TestWhatThisKernelHas(t *testing.T) {
	harness.NeedDaemon(t)
	var missing []string
	for _, f := range harness.Features {
		if !harness.KernelHas(t, f) {
			missing = append(missing, f.Name)
		}
	}
	harness.EachMode(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		e.WriteThrough() // or there is no direct I/O
		o := e.Overlay(t, "file f \"x\"\nfile gone \"x\"\nfile d/f \"x\"")
		o.Mount()
		line := readMountedLine(t, o)
		slices.Sort(missing)
		slices.Sort(line.Missing)
		if !slices.Equal(line.Missing, missing) {
			t.Errorf("not in this kernel: %q, want %q", line.Missing, missing)
		}
		wantWord(t, "direct I/O", strings.Contains(line.IO, "direct I/O for new files"),
			harness.DirectIO(t) && !e.Has(harness.Passthrough))
		wantWord(t, "clones of mounts", !strings.Contains(strings.Join(line.Without, "\n"), "private read-only clones"),
			e.Mode != harness.ModeFusermount && harness.KernelAtLeast(t, 5, 12))
		wantNoOpens(t, o)
		wantWhiteout(t, o, line.Whiteouts)
		t.Logf("whiteouts: %s; io: %s; not in this kernel: %q; done without: %q",
			line.Whiteouts, line.IO, line.Missing, line.Without)
	})
}

func wantWord(t *testing.T, what string, got, want bool) {
	t.Helper()
	if got != want {
		t.Errorf("%s: %v by the log, want %v", what, got, want)
	}
}

// wantNoOpens checks that the kernel opens files and directories by itself. All kernels that the
// program supports do.
func wantNoOpens(t *testing.T, o *harness.Overlay) {
	t.Helper()
	if o.Env.Has(harness.Passthrough) {
		return
	}
	visit := func() {
		harness.WantNames(t, o.Path("d"), "f")
		harness.WantText(t, o.Path("d/f"), "x")
		harness.WantText(t, o.Path("f"), "x")
	}
	visit()
	again := o.During(visit)
	for _, op := range []string{"OPEN", "OPENDIR", "RELEASE", "RELEASEDIR"} {
		if n := again[op]; n != 0 {
			t.Errorf("%d requests %s for files that were open before", n, op)
		}
	}
}

// wantWhiteout removes a file of the lower, and checks that the upper has the whiteout of which the
// log reports the kind.
func wantWhiteout(t *testing.T, o *harness.Overlay, kind string) {
	t.Helper()
	harness.Check(t, os.Remove(o.Path("gone")))
	harness.WantAbsent(t, o.Path("gone"))
	var st unix.Stat_t
	err := unix.Lstat(filepath.Join(o.Upper, "gone"), &st)
	device := err == nil && st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0
	wantWord(t, "whiteout devices", strings.Contains(kind, "device"), device)
}

// A kernel without passthrough refuses the option, with the reason.
func TestPassthroughNeedsTheKernel(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.OnlyRoot, func(t *testing.T, e *harness.Env) {
		e.Opts = []string{harness.Passthrough}
		o := e.Overlay(t, "file f \"x\"")
		if harness.KernelHas(t, harness.BackingFiles) {
			o.Mount()
			if line := readMountedLine(t, o); !strings.HasPrefix(line.IO, "passthrough") {
				t.Errorf("io: %s", line.IO)
			}
			return
		}
		out, err := o.TryMount()
		if harness.ExitCode(err) != 1 || !strings.Contains(out, "this kernel has no FUSE passthrough") {
			t.Errorf("%v: %s", err, out)
		}
	})
}
