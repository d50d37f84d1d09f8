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
)

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

// Run runs a program to its end and to the end of its output, which a daemon must not hold open.
func Run(program string, args ...string) (string, error) {
	return RunIn("", nil, CommandLimit, program, args...)
}

func RunIn(dir string, environ []string, limit time.Duration, program string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.Dir, cmd.WaitDelay = dir, 3*time.Second
	cmd.Cancel = func() error {
		if len(args) > 0 { // a daemon that hangs before it lets go of our stderr tells there where
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

// Shell runs a shell script and fails the test when the script fails.
func Shell(t *testing.T, dir, script string) string {
	t.Helper()
	out, err := RunIn(dir, nil, time.Minute, "bash", "-euc", script)
	if err != nil {
		t.Fatalf("%s: %v\n%s", script, err, out)
	}
	return out
}

// Chroot runs a script inside a root file system.
func Chroot(t *testing.T, root, shell, script string) string {
	t.Helper()
	out, err := RunIn("/", []string{"DEBIAN_FRONTEND=noninteractive", "LC_ALL=C", "HOME=/root", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"},
		3*time.Minute, "chroot", root, shell, "-euc", script)
	if err != nil {
		t.Fatalf("in %s: %s: %v\n%s", root, script, err, out)
	}
	return out
}
