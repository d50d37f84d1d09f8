package command

import (
	"debug/elf"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// The messages of the log about the probe for lost appends.
const (
	logLoses     = `writeback=1: this kernel loses data`
	logKeeps     = `writeback=0: this kernel does not lose data`
	logUnknown   = `writeback=1: whether this kernel loses data`
	logWarnsLoss = `writeback=0: with this kernel, data that is appended`
)

// By default a writable mount collects writes if the kernel would lose data otherwise. writeback=0
// logs a warning then.
func TestWritebackIsWhatTheKernelNeeds(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.AllModes, func(t *testing.T, e *harness.Env) {
		logOf := func(change func(o *harness.Overlay), opts ...string) string {
			t.Helper()
			o := harness.NewEnv(t, e.Mode).Overlay(t, "file f \"text\"")
			o.Opts = opts
			change(o)
			o.Mount()
			harness.WantText(t, o.Path("f"), "text")
			o.Unmount()
			return harness.ReadText(t, o.Log)
		}
		writable, readOnly := func(*harness.Overlay) {}, func(o *harness.Overlay) { o.Upper = "" }
		text := logOf(writable)
		loses, keeps := strings.Contains(text, logLoses), strings.Contains(text, logKeeps)
		if loses == keeps {
			t.Fatalf("the probe has found nothing:\n%s", text)
		}
		if text := logOf(writable, "writeback=0"); strings.Contains(text, logWarnsLoss) != loses {
			t.Errorf("writeback=0, and the kernel loses data: %v\n%s", loses, text)
		}
		for what, text := range map[string]string{"writeback=1": logOf(writable, "writeback=1"),
			"read-only": logOf(readOnly)} {
			if strings.Contains(text, logLoses) || strings.Contains(text, logKeeps) || strings.Contains(text, logUnknown) {
				t.Errorf("%s: the probe has nothing to find\n%s", what, text)
			}
		}
	})
}

// If the probe cannot run, the program assumes that the kernel loses data.
func TestWritebackWithoutAnAnswerOfTheProbe(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.RootModes, func(t *testing.T, e *harness.Env) {
		t.Setenv("_FUSE_OVERLAY_LOSS_SERVER_FD", "999") // no socket
		o := e.Mounted(t, "file f \"text\"")
		harness.AppendTo(t, o.Path("f"), "more")
		harness.WantText(t, o.Path("f"), "textmore")
		o.Unmount()
		if text := harness.ReadText(t, o.Log); !strings.Contains(text, logUnknown) {
			t.Errorf("the log:\n%s", text)
		}
	})
}

// In the foreground the daemon starts the client of the probe itself. The client has ended when the
// mount can be used.
func TestProbeInTheForeground(t *testing.T) {
	harness.NeedDaemon(t)
	harness.EachMode(t, harness.OnlyRoot, func(t *testing.T, e *harness.Env) {
		cmd := mountInForeground(t, e)
		children := func() string { // but the one that unmounts for the daemon
			lists, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", cmd.Process.Pid))
			harness.Check(t, err)
			var all []string
			for _, list := range lists {
				text, _ := os.ReadFile(list) // the thread may have ended
				all = append(all, strings.Fields(string(text))...)
			}
			keeper := strconv.Itoa(harness.KeeperOf(cmd.Process.Pid))
			return strings.Join(slices.DeleteFunc(all, func(pid string) bool { return pid == keeper }), " ")
		}
		if !harness.Eventually(time.Second, func() bool { return children() == "" }) {
			t.Errorf("children are left: %s", children())
		}
	})
}

// TestProbeOfASlowClient delays each program that starts. So the daemon removes the mounts of its
// namespace before the client of the probe has done anything.
func TestProbeOfASlowClient(t *testing.T) {
	harness.NeedDaemon(t)
	if needsLoader(t, harness.Program) { // the loader could not open the libraries any more
		t.Skip("the program is not static, because it has the race detector")
	}
	harness.EachMode(t, harness.OnlyRoot, func(t *testing.T, e *harness.Env) {
		mountInForeground(t, e, "strace", "-f", "-o", "/dev/null", "-e", "trace=execve",
			"-e", "inject=execve:delay_exit=200000")
	})
}

// mountInForeground mounts with -f, run by another command if there is one, and checks that the
// probe has a result. The mount ends with the test.
func mountInForeground(t *testing.T, e *harness.Env, by ...string) *exec.Cmd {
	t.Helper()
	o := e.Overlay(t, "file f \"text\"")
	argv := append(slices.Clip(by), harness.Program, "-f", "-o", o.MountOptions(), o.Point)
	cmd := exec.Command(argv[0], argv[1:]...)
	harness.Check(t, cmd.Start())
	t.Cleanup(func() {
		if len(by) > 0 { // a signal would end the other command alone
			harness.Check(t, syscall.Unmount(o.Point, 0))
		} else {
			harness.Check(t, cmd.Process.Signal(syscall.SIGTERM))
		}
		harness.Check(t, cmd.Wait())
	})
	if !harness.Eventually(5*time.Second, o.IsMounted) {
		t.Fatal("not mounted in the foreground")
	}
	harness.WantText(t, o.Path("f"), "text")
	// The line about the mount comes after the mount, and no process waits for it with -f.
	found := func() bool {
		text := harness.ReadText(t, o.Log)
		return strings.Contains(text, logLoses) != strings.Contains(text, logKeeps)
	}
	if !harness.Eventually(time.Second, found) {
		t.Errorf("the probe has found nothing:\n%s", harness.ReadText(t, o.Log))
	}
	return cmd
}

// needsLoader reports whether a program is dynamically linked.
func needsLoader(t *testing.T, program string) bool {
	t.Helper()
	f, err := elf.Open(program)
	harness.Check(t, err)
	defer f.Close()
	return slices.ContainsFunc(f.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP })
}
