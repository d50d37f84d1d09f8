package commands

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

func TestMain(m *testing.M) {
	harness.Main(m, harness.Suite{Tools: map[string]string{"script": "bsdutils"}})
}

// result is what a command has printed, and its exit code.
type result struct {
	out, errs string
	code      int
}

// program runs a program to its end.
func program(t *testing.T, argv ...string) (r result) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), harness.CommandLimit)
	defer cancel()
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if ctx.Err() != nil {
		t.Fatalf("%q does not end", argv)
	}
	return result{out.String(), errs.String(), harness.ExitCode(err)}
}

// command runs a command of the program under test.
func command(t *testing.T, args ...string) result {
	t.Helper()
	return program(t, append([]string{harness.Program}, args...)...)
}

// asPlainUser is the beginning of a command line that root starts as the plain user.
func asPlainUser(argv ...string) []string {
	user := fmt.Sprint(harness.PlainUser.UID)
	return append([]string{"setpriv", "--reuid", user, "--regid", fmt.Sprint(harness.PlainUser.GID), "--clear-groups"}, argv...)
}

// want fails the test unless a command has ended so. errs is a part of what it has written to
// stderr, in one line; empty: it has written nothing.
func (r result) want(t *testing.T, code int, errs string) {
	t.Helper()
	lines := strings.Count(r.errs, "\n")
	if r.code != code || (errs == "") != (r.errs == "") || !strings.Contains(r.errs, errs) || lines > 1 {
		t.Errorf("exit %d, stderr %q, want exit %d and %q", r.code, r.errs, code, errs)
	}
}

// listed is a mount in the output of list --json.
type listed struct {
	Point, Type, Mode, Upper, Work string
	State                          *string
	Hidden                         bool
	User                           int
	PID                            *int
	AgeSeconds                     *float64 `json:"age_seconds"`
	Lowers                         []string
	DataOnly                       []string `json:"data_only"`
}

// listAt returns the mounts at a point by the output of a command.
func listAt(t *testing.T, r result, point string) (at []listed) {
	t.Helper()
	r.want(t, 0, "")
	var all []listed
	if err := json.Unmarshal([]byte(r.out), &all); err != nil {
		t.Fatalf("%v: %s", err, r.out)
	}
	for _, m := range all {
		if m.Point == point {
			at = append(at, m)
		}
	}
	return at
}

// theOne returns the mount at a point that the user of the test sees.
func theOne(t *testing.T, point string) listed {
	t.Helper()
	at := listAt(t, command(t, "list", "--json"), point)
	if len(at) != 1 {
		t.Fatalf("%d mounts at %q", len(at), point)
	}
	return at[0]
}

// want fails the test unless a mount has a state and a process; 0: the process is not known.
func (m listed) want(t *testing.T, state string, pid int) {
	t.Helper()
	got, gotPID := "null", 0
	if m.State != nil {
		got = *m.State
	}
	if m.PID != nil {
		gotPID = *m.PID
	}
	if got != state || gotPID != pid || (m.AgeSeconds == nil) != (pid == 0) {
		t.Errorf("%s: state %s, process %d, want %s, %d", m.Point, got, gotPID, state, pid)
	}
}

// stop stops a process. When it returns, no thread of the process runs.
func stop(t *testing.T, pid int) {
	t.Helper()
	harness.Kill(pid, syscall.SIGSTOP)
	stopped := func() bool {
		threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
		harness.Check(t, err)
		for _, path := range threads {
			if text := harness.ReadText(t, path); !strings.HasPrefix(text[strings.LastIndexByte(text, ')'):], ") T") {
				return false
			}
		}
		return len(threads) > 0
	}
	if !harness.Eventually(harness.CommandLimit, stopped) {
		t.Fatalf("process %d does not stop", pid)
	}
}
