package main

import (
	"errors"
	"reflect"
	"strings"
	"testing"
)

// TestGoEvents reads the output of go test -json: a test that passed, one that failed, one that was
// skipped, a package that failed before its first test, and one without tests.
func TestGoEvents(t *testing.T) {
	const text = `{"Action":"start","Package":"os"}
{"Action":"run","Package":"os","Test":"TestA"}
{"Action":"output","Package":"os","Test":"TestA","Output":"=== RUN   TestA\n"}
{"Action":"pass","Package":"os","Test":"TestA","Elapsed":0.1}
{"Action":"output","Package":"os","Test":"TestB/sub","Output":"    b_test.go:1: got EIO\n"}
{"Action":"output","Package":"os","Test":"TestB/sub","Output":"--- FAIL: TestB/sub\n"}
{"Action":"fail","Package":"os","Test":"TestB/sub"}
{"Action":"output","Package":"os","Test":"TestC","Output":"    c_test.go:1: not here\n"}
{"Action":"skip","Package":"os","Test":"TestC"}
{"Action":"fail","Package":"os"}
{"Action":"build-output","ImportPath":"syscall","Output":"x.go:1: wrong\n"}
{"Action":"output","Package":"syscall","Output":"FAIL syscall [build failed]\n"}
{"Action":"fail","Package":"syscall"}
{"Action":"output","Package":"embed","Output":"? embed [no test files]\n"}
{"Action":"skip","Package":"embed"}
`
	got, err := parseGo(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	want := []result{
		{Case: "os/TestA", Status: passed},
		{Case: "os/TestB/sub", Status: failed, Detail: "b_test.go:1: got EIO"},
		{Case: "os/TestC", Status: notApplicable, Detail: "c_test.go:1: not here"},
		{Case: "syscall", Status: failed, Detail: "the package failed: FAIL syscall [build failed]"},
		{Case: "embed", Status: notApplicable, Detail: "? embed [no test files]"},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if got, err := parseGo(strings.NewReader("")); err == nil {
		t.Errorf("no output has results: %v", got)
	}
}

// TestUnitWithoutCases are the results of a module. A failure that no case explains is its own.
func TestUnitWithoutCases(t *testing.T) {
	crash := errors.New("exit status 2")
	ok, bad := result{Case: "a", Status: passed}, result{Case: "b", Status: failed}
	for _, c := range []struct {
		results []result
		err     error
		want    []result
	}{
		{[]result{ok}, nil, []result{ok}},
		{[]result{ok, bad}, crash, []result{ok, bad}},
		{[]result{ok}, crash, []result{ok, {Case: "test_os", Status: failed, Detail: "exit status 2: why"}}},
		{nil, crash, []result{{Case: "test_os", Status: failed, Detail: "exit status 2: why"}}},
		{nil, nil, []result{{Case: "test_os", Status: notApplicable, Detail: "why"}}},
	} {
		if got := withUnit(c.results, "test_os", c.err, "why"); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%v, %v: got %v, want %v", c.results, c.err, got, c.want)
		}
	}
}
