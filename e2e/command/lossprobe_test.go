package e2e

import (
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The messages of the log about the probe for lost appends.
const (
	logLoses     = `writeback=1: this kernel loses data`
	logKeeps     = `writeback=0: this kernel does not lose data`
	logUnknown   = `writeback=1: whether this kernel loses data`
	logWarnsLoss = `writeback=0: with this kernel, data that is appended`
)

// By default a mount that can be written collects writes where the kernel would lose data otherwise; writeback=0 warns there.
func TestWritebackIsWhatTheKernelNeeds(t *testing.T) {
	needDaemon(t)
	eachMode(t, allModes, func(t *testing.T, e *env) {
		logOf := func(readOnly bool, opts ...string) string {
			t.Helper()
			o := newEnv(t, e.mode).overlay(t, "file f \"text\"")
			o.opts = opts
			if readOnly {
				o.upper = ""
			}
			o.mount()
			wantText(t, o.path("f"), "text")
			o.unmount()
			return readText(t, o.log)
		}
		text := logOf(false)
		loses, keeps := strings.Contains(text, logLoses), strings.Contains(text, logKeeps)
		if loses == keeps {
			t.Fatalf("the probe has found nothing:\n%s", text)
		}
		if text := logOf(false, "writeback=0"); strings.Contains(text, logWarnsLoss) != loses {
			t.Errorf("writeback=0, and the kernel loses data: %v\n%s", loses, text)
		}
		for what, text := range map[string]string{"writeback=1": logOf(false, "writeback=1"), "read-only": logOf(true)} {
			if strings.Contains(text, logLoses) || strings.Contains(text, logKeeps) || strings.Contains(text, logUnknown) {
				t.Errorf("%s: there is nothing to be found out\n%s", what, text)
			}
		}
	})
}

// Where the probe cannot run the kernel is taken for one that loses data.
func TestWritebackWithoutAnAnswerOfTheProbe(t *testing.T) {
	needDaemon(t)
	eachMode(t, rootModes, func(t *testing.T, e *env) {
		t.Setenv("_FUSE_OVERLAY_LOSS_SERVER_FD", "999") // no socket
		o := e.mounted(t, "file f \"text\"")
		appendTo(t, o.path("f"), "more")
		wantText(t, o.path("f"), "textmore")
		o.unmount()
		if text := readText(t, o.log); !strings.Contains(text, logUnknown) {
			t.Errorf("the log:\n%s", text)
		}
	})
}

// In the foreground the daemon starts the client of the probe itself, and has it gone when the mount answers.
func TestProbeInTheForeground(t *testing.T) {
	needDaemon(t)
	eachMode(t, onlyRoot, func(t *testing.T, e *env) {
		o := e.overlay(t, "file f \"text\"")
		cmd := exec.Command(binPath, "-f", "-o", o.options(), o.mnt)
		check(t, cmd.Start())
		t.Cleanup(func() {
			check(t, cmd.Process.Signal(syscall.SIGTERM))
			check(t, cmd.Wait())
		})
		if !eventually(5*time.Second, o.isMounted) {
			t.Fatal("not mounted in the foreground")
		}
		wantText(t, o.path("f"), "text")
		if text := readText(t, o.log); strings.Contains(text, logLoses) == strings.Contains(text, logKeeps) {
			t.Errorf("the probe has found nothing:\n%s", text)
		}
		children := fmt.Sprintf("/proc/%d/task/%[1]d/children", cmd.Process.Pid)
		if !eventually(time.Second, func() bool { return strings.TrimSpace(readText(t, children)) == "" }) {
			t.Errorf("children are left: %s", readText(t, children))
		}
	})
}
