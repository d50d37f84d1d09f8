package main

import (
	"reflect"
	"strings"
	"testing"
)

// TestJUnitOfProve reads what prove writes: assertions in files, one failed, and a file that ended
// early.
func TestJUnitOfProve(t *testing.T) {
	const text = `<testsuites>
  <testsuite name="_s_tests_chmod_00_t" tests="2" failures="1" errors="1">
    <testcase name="1"></testcase>
    <testcase name="2 - tried 'x &amp; y', expected 0, got EPERM">
      <failure type="TestFailed" message="not ok 2 - tried 'x &amp; y'"><![CDATA[not ok 2]]></failure>
    </testcase>
    <testcase name="(teardown)"><error message="Bad plan"></error></testcase>
    <system-out><![CDATA[1..3]]></system-out>
  </testsuite>
</testsuites>`
	name := func(suite, testcase string) string {
		number, _, _ := strings.Cut(testcase, " ")
		return suite + ":" + number
	}
	got, err := parseJUnit(strings.NewReader(text), name)
	if err != nil {
		t.Fatal(err)
	}
	want := []result{
		{Case: "_s_tests_chmod_00_t:1", Status: passed},
		{Case: "_s_tests_chmod_00_t:2", Status: failed, Detail: "not ok 2 - tried 'x & y'"},
		{Case: "_s_tests_chmod_00_t:(teardown)", Status: failed, Detail: "Bad plan"},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if got := junitName("/s/tests/chmod/00.t"); got != "_s_tests_chmod_00_t" {
		t.Errorf("the name of the file is %s", got)
	}
}

// TestJUnitOfXfstests reads a report without testsuites, and a case that does not apply.
func TestJUnitOfXfstests(t *testing.T) {
	const text = `<?xml version="1.0"?><testsuite name="xfstests">
	<testcase classname="xfstests.global" name="overlay/001" time="1"></testcase>
	<testcase name="overlay/002"><skipped message="not this&#10;more" /></testcase>
	<testcase name="overlay/003"><failure message="- output mismatch" type="TestFail" /></testcase>
</testsuite>`
	got, err := parseJUnit(strings.NewReader(text), func(_, testcase string) string { return testcase })
	if err != nil {
		t.Fatal(err)
	}
	want := []result{
		{Case: "overlay/001", Status: passed},
		{Case: "overlay/002", Status: notApplicable, Detail: "not this"},
		{Case: "overlay/003", Status: failed, Detail: "- output mismatch"},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// TestJUnitWithoutCases is a suite that has not run.
func TestJUnitWithoutCases(t *testing.T) {
	for _, text := range []string{"", "<testsuites></testsuites>"} {
		if got, err := parseJUnit(strings.NewReader(text), nil); err == nil {
			t.Errorf("%q has results: %v", text, got)
		}
	}
}
