package main

import (
	"os/exec"
	"reflect"
	"testing"
)

// TestCommandCases are the outcomes of commands: passed, failed with its last line, not applicable,
// killed, and not found.
func TestCommandCases(t *testing.T) {
	sh := func(script string) *exec.Cmd { return exec.Command("sh", "-c", script) }
	got := commandCases([]commandCase{
		{name: "good", cmd: sh("exit 0")},
		{name: "bad", cmd: sh("echo first; echo last >&2; exit 1"), missing: []int{3, 4}},
		{name: "missing", cmd: sh("echo 'not here'; exit 4"), missing: []int{3, 4}},
		{name: "killed", cmd: sh("kill -9 $$")},
		{name: "nowhere", cmd: exec.Command("/nonexistent/command")},
	})
	want := []result{
		{Case: "good", Status: passed},
		{Case: "bad", Status: failed, Detail: "exit status 1: last"},
		{Case: "missing", Status: notApplicable, Detail: "not here"},
		{Case: "killed", Status: failed, Detail: "signal: killed: "},
		{Case: "nowhere", Status: failed, Detail: "fork/exec /nonexistent/command: no such file or directory: "},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestUnionmountGoesOn has a suite that ends with its first failure, as unionmount-testsuite does.
// The tests after that one still run, and each has its own result.
func TestUnionmountGoesOn(t *testing.T) {
	const suite = `for t; do echo "***"; echo "*** ./run --ov $t"; echo "***"
		case $t in bad*) echo "$t: EXDEV"; exit 1;; esac; done`
	s := session{Source: t.TempDir()}
	got, err := s.unionmountTests([]string{"sh", "-c", suite, "sh"}, nil, []string{"one", "bad1", "two", "bad2"})
	if err != nil {
		t.Fatal(err)
	}
	want := []result{
		{Case: "one", Status: passed}, {Case: "bad1", Status: failed, Detail: "bad1: EXDEV"},
		{Case: "two", Status: passed}, {Case: "bad2", Status: failed, Detail: "bad2: EXDEV"},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if _, err := s.unionmountTests([]string{"sh", "-c", "exit 1"}, nil, []string{"one"}); err == nil {
		t.Error("a suite that does not run has no error")
	}
}
