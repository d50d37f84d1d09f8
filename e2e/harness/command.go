package harness

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// CommandLimit is the time limit of a command that should end at once.
const CommandLimit = 20 * time.Second

// Run runs a program to its end and to the end of its output, which a daemon must not hold open. It
// returns what the program has written to stdout and stderr.
func Run(program string, args ...string) (string, error) {
	return RunIn("", nil, CommandLimit, program, args...)
}

// RunIn is Run in a folder, with variables added to the environment, and with a time limit.
func RunIn(dir string, environ []string, limit time.Duration, program string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.Dir, cmd.WaitDelay = dir, 3*time.Second
	cmd.Cancel = func() error {
		if len(args) > 0 { // a daemon that hangs while it still has stderr prints its stacks there
			for _, pid := range DaemonsOf(args[len(args)-1]) {
				Kill(pid, syscall.SIGQUIT)
			}
		}
		return cmd.Process.Kill()
	}
	if environ != nil {
		cmd.Env = append(os.Environ(), environ...)
	}
	err := cmd.Run()
	if ctx.Err() != nil {
		err = fmt.Errorf("not ended after %v: %w", limit, err)
	}
	return out.String(), err
}

// Shell runs a shell script in a folder, and ends the test if the script fails.
func Shell(t *testing.T, dir, script string) string {
	t.Helper()
	out, err := RunIn(dir, nil, time.Minute, "bash", "-euc", script)
	if err != nil {
		t.Fatalf("%s: %v\n%s", script, err, out)
	}
	return out
}

// chrootEnv is the environment of programs in a root file system.
var chrootEnv = []string{
	"DEBIAN_FRONTEND=noninteractive", "LC_ALL=C", "HOME=/root", "PATH=/usr/sbin:/usr/bin:/sbin:/bin",
}

// Chroot runs a script in a root file system, and ends the test if the script fails.
func Chroot(t *testing.T, root, shell, script string) string {
	t.Helper()
	out, err := TryChroot(root, shell, script)
	if err != nil {
		t.Fatalf("in %s: %s: %v\n%s", root, script, err, out)
	}
	return out
}

// TryChroot is Chroot for a script that may fail.
func TryChroot(root, shell, script string) (out string, err error) {
	return RunIn("/", chrootEnv, 3*time.Minute, "chroot", root, shell, "-euc", script)
}

// ExitCode is the exit code of a command by its error, and -1 for an error of another kind.
func ExitCode(err error) int {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode()
	}
	if err != nil {
		return -1
	}
	return 0
}

// KernelAtLeast reports whether the running kernel has this version or a later one.
func KernelAtLeast(t *testing.T, major, minor int) bool {
	t.Helper()
	var u unix.Utsname
	Check(t, unix.Uname(&u))
	var a, b int
	_, err := fmt.Sscanf(unix.ByteSliceToString(u.Release[:]), "%d.%d", &a, &b)
	Check(t, err)
	return a > major || a == major && b >= minor
}

// Busybox is the path of the static busybox.
func Busybox(t *testing.T) string {
	t.Helper()
	p, err := exec.LookPath("busybox")
	Check(t, err)
	out, err := exec.Command("ldd", p).CombinedOutput()
	if err == nil || !bytes.Contains(out, []byte("not a dynamic")) {
		t.Fatalf("%s is not static (package busybox-static): %s", p, out)
	}
	return p
}
