package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

// Wrong arguments are exit code 2, with the command in front and what to do next.
func TestWrongUsage(t *testing.T) {
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{"version", "--jsom"}, "fuse-overlay version: unknown flag: --jsom; see fuse-overlay version --help\n"},
		{[]string{"version", "x"}, "fuse-overlay version: unknown command \"x\" for \"fuse-overlay version\"; see fuse-overlay version --help\n"},
		{[]string{"completion", "tcsh"},
			"fuse-overlay completion: invalid argument \"tcsh\" for \"fuse-overlay completion\"; see fuse-overlay completion --help\n"},
		{[]string{"help", "none"}, "fuse-overlay help: \"none\" is no command; see fuse-overlay help --help\n"},
		{[]string{"help", "list", "x"}, "fuse-overlay help: \"list x\" is no command; see fuse-overlay help --help\n"},
		{[]string{"no\x1bne"}, "fuse-overlay: unknown command \"no\\x1bne\" for \"fuse-overlay\"; see fuse-overlay --help\n"},
	} {
		out, errs, code := runCommand(tt.args...)
		if code != exitUsage || out != "" || errs != tt.want {
			t.Errorf("%q\n got: %d %q %q\nwant: %q", tt.args, code, out, errs, tt.want)
		}
	}
}

// An error of the work is exit code 1. Joined errors have a line each, and a finding has none.
func TestErrorsOfWork(t *testing.T) {
	c := &cobra.Command{Use: "x"}
	for _, tt := range []struct {
		err  error
		want string
	}{
		{errors.New("a\nb\tc"), "x: a; b?c\n"},
		{errors.Join(errors.New("a"), errors.New("b")), "x: a\nx: b\n"},
		{errFinding, ""},
	} {
		var errs bytes.Buffer
		err := work(func(*cobra.Command, []string) error { return tt.err })(c, nil)
		if code := report(&errs, c, err); code != exitFailed || errs.String() != tt.want {
			t.Errorf("%v: exit %d, %q, want %q", tt.err, code, &errs, tt.want)
		}
	}
	var errs bytes.Buffer
	if err := work(func(*cobra.Command, []string) error { return nil })(c, nil); report(&errs, c, err) != exitOK || errs.Len() > 0 {
		t.Errorf("no error: %v, %q", err, &errs)
	}
}

// fullDisk is a stdout that cannot be written.
type fullDisk struct{}

func (fullDisk) Write([]byte) (int, error) { return 0, unix.ENOSPC }

func TestLostOutputIsAFailure(t *testing.T) {
	for _, args := range [][]string{{"version"}, {"version", "--json"}, {"--help"}, {"completion", "bash"}} {
		var errs bytes.Buffer
		code := run(append([]string{ownName}, args...), fullDisk{}, &errs)
		if code != exitFailed || !strings.HasSuffix(errs.String(), "no space left on device\n") {
			t.Errorf("%q: exit %d, %q", args, code, &errs)
		}
	}
}

func TestVersion(t *testing.T) {
	out, errs, code := runCommand("version")
	if code != exitOK || errs != "" || !strings.HasPrefix(out, "fuse-overlay version ") || !strings.Contains(out, "\nbuilt by: go1.") {
		t.Errorf("exit %d: %q %q", code, out, errs)
	}
	out, errs, code = runCommand("version", "--json")
	var fields map[string]any
	if err := json.Unmarshal([]byte(out), &fields); err != nil || code != exitOK || errs != "" {
		t.Errorf("exit %d, %v: %q %q", code, err, out, errs)
	}
	for _, name := range []string{"version", "go", "platform"} {
		if text, ok := fields[name].(string); !ok || text == "" {
			t.Errorf("%s is %v", name, fields[name])
		}
	}
}
