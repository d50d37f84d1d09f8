package engines

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// serviceLimit is the time that a client's daemon may take to start, and to end.
const serviceLimit = 20 * time.Second

// startService starts a client's daemon in the foreground, waits until it is ready, and ends it
// with the test.
func startService(t *testing.T, e *harness.Env, ready func() error, program string, args ...string) {
	t.Helper()
	logPath := filepath.Join(e.Dir, filepath.Base(program)+".log")
	log, err := os.Create(logPath)
	harness.Check(t, err)
	defer log.Close()
	cmd := exec.Command(program, args...)
	cmd.Stdout, cmd.Stderr, cmd.Dir = log, log, "/"
	harness.Check(t, cmd.Start())
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }()
	t.Cleanup(func() {
		harness.Kill(cmd.Process.Pid, syscall.SIGTERM)
		select {
		case <-ended:
		case <-time.After(serviceLimit):
			t.Errorf("%s has not ended %v after SIGTERM", program, serviceLimit)
			harness.Kill(cmd.Process.Pid, syscall.SIGKILL)
			<-ended
		}
		if t.Failed() {
			text, _ := os.ReadFile(logPath)
			t.Logf("the log of %s:\n%s", program, tail(string(text), 6000))
		}
	})
	var notReady error
	harness.Eventually(serviceLimit, func() bool {
		notReady = ready()
		select {
		case <-ended:
			return true
		default:
			return notReady == nil
		}
	})
	if notReady != nil {
		t.Fatalf("%s is not ready: %v", program, notReady)
	}
}

// tail is the end of a long text.
func tail(s string, n int) string {
	if len(s) > n {
		return "..." + s[len(s)-n:]
	}
	return s
}
