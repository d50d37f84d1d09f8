package harness

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

const (
	childLimit   = 4 * time.Minute
	privateLimit = 10 * time.Minute // builds of images are slow on a race-built daemon
)

// InChild reports whether EachMode has started this process.
func InChild() bool { return os.Getenv(envMode) != "" }

// copySelf makes a copy of the test binary that every user can run.
var copySelf = sync.OnceValues(func() (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	path := filepath.Join(RunDir, "e2e.test")
	return path, CopyFile(self, path)
})

// CopyFile makes an executable copy that every user may read.
func CopyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o755)
	if err != nil {
		return err
	}
	if _, err = io.Copy(out, in); err != nil {
		return errors.Join(err, out.Close())
	}
	return out.Close()
}

// runInMode runs the calling subtest in a child process.
func runInMode(t *testing.T, m Mode) {
	t.Helper()
	self, err := copySelf()
	Check(t, err)
	parts := strings.Split(t.Name(), "/")
	for i, p := range parts {
		parts[i] = "^" + regexp.QuoteMeta(p) + "$"
	}
	limit := childLimit
	if m == ModePrivate {
		limit = privateLimit
	}
	limit *= time.Duration(limitFactor)
	args := []string{
		self, "-test.v", "-test.count=1", "-test.run=" + strings.Join(parts, "/"), "-test.timeout=" + limit.String(),
	}
	switch m {
	case ModeUserns:
		args = append([]string{"unshare", "--user", "--mount", "--map-root-user", "--map-auto", "--"}, args...)
	case ModePrivate:
		args = append(slices.Clone(privateArgs), args...)
		defer func() {
			if err := removeCgroups(); err != nil {
				t.Error(err)
			}
		}()
	}
	ctx, cancel := context.WithTimeout(t.Context(), limit+10*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Dir = "/"
	cmd.WaitDelay = 5 * time.Second
	cmd.Env = append(os.Environ(), envMode+"="+string(m), envBase+"="+RunDir, envBin+"="+Program)
	if m == ModePrivate {
		// The child ends if this process is killed. The kernel sends the signal at the end of the thread
		// that starts it.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	} else {
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Credential: &syscall.Credential{Uid: uint32(PlainUser.UID), Gid: uint32(PlainUser.GID)},
		}
		cmd.Env = append(cmd.Env, "HOME=/home/"+PlainUser.Name, "USER="+PlainUser.Name,
			"TMPDIR="+filepath.Join(RunDir, string(m)))
	}
	out, err := cmd.CombinedOutput()
	wantPassed(t, m, string(out), err)
}

// wantPassed fails the test unless the child process has run it and has succeeded.
func wantPassed(t *testing.T, m Mode, out string, err error) {
	t.Helper()
	test, _, _ := strings.Cut(t.Name(), "/")
	switch {
	case err != nil:
		t.Errorf("as %s: %v\n%s", m, err, out)
	case !strings.Contains(out, "--- PASS: "+test):
		t.Errorf("as %s: nothing ran\n%s", m, out)
	default:
		t.Log(out)
	}
}
