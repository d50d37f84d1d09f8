package main

import (
	"reflect"
	"strings"
	"testing"
)

const someExpected = `# a comment
fsx       *              plain      D1, of all modes
pjdfstest userns         chmod/00:* the kernel too
pjdfstest userns         open/01:3 D2
pjdfstest userns         ~link/0*  depends on the machine
pjdfstest userns         =mknod/*  the kernel too
`

// TestSurprises compares results with the list: a failure that is not on it, and one that is. Three
// lines list nothing: one whose cases all passed, one of another mode, and one whose cases did not
// run. The cases of one more may pass, and those of the last one fail as in the kernel.
func TestSurprises(t *testing.T) {
	list, err := parseExpected(someExpected)
	if err != nil {
		t.Fatal(err)
	}
	kernels := &record{Results: []result{{Case: "mknod/00:1", Status: failed}, {Case: "mknod/00:2", Status: passed}}}
	for _, c := range []struct {
		mode    string
		results []result
		want    []string
	}{
		{"userns", []result{{Case: "mknod/00:1", Status: failed}, {Case: "mknod/00:2", Status: passed}}, nil},
		{"userns", []result{{Case: "mknod/00:1", Status: passed}, {Case: "mknod/00:2", Status: failed}},
			[]string{"pjdfstest userns mknod/00:1: passed, but not with the kernel's overlayfs",
				"pjdfstest userns mknod/00:2: failed, but not with the kernel's overlayfs"}},
		{"userns", []result{{Case: "mknod/00:3", Status: failed, Detail: "x"}}, []string{"pjdfstest userns mknod/00:3 fails: x"}},
		{"userns", []result{{Case: "chmod/00:1", Status: passed}, {Case: "chmod/00:2", Status: failed}}, nil},
		{"userns", []result{{Case: "chmod/00:1", Status: passed}},
			[]string{"pjdfstest userns chmod/00:* does not fail, but expected.txt:3 lists it"}},
		{"userns", []result{{Case: "open/01:3", Status: notApplicable}},
			[]string{"pjdfstest userns open/01:3 does not fail, but expected.txt:4 lists it"}},
		{"writeback=1", []result{{Case: "chmod/00:2", Status: failed, Detail: "got EIO"}},
			[]string{"pjdfstest writeback=1 chmod/00:2 fails: got EIO"}},
		{"writeback=1", []result{{Case: "chmod/00:2", Status: passed}}, nil},
		{"userns", []result{{Case: "link/00:1", Status: passed}}, nil},
		{"userns", []result{{Case: "link/00:1", Status: failed}}, nil},
	} {
		got := surprises(&record{Suite: "pjdfstest", Mode: c.mode, Results: c.results}, kernels, list)
		if !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s %v: got %q, want %q", c.mode, c.results, got, c.want)
		}
	}
}

// TestWrongExpectations are lines that the command refuses.
func TestWrongExpectations(t *testing.T) {
	for _, line := range []string{"fsx * plain", "fsx nowhere plain D1", "fsx * [ D1"} {
		if _, err := parseExpected(line); err == nil {
			t.Errorf("%q is accepted", line)
		}
	}
}

// TestLists checks the lists of this tree: each expectation names a suite, and each suite that does
// not come with the machine has a pin.
func TestLists(t *testing.T) {
	list, err := parseExpected(expectedText)
	if err != nil {
		t.Fatal(err)
	}
	pins, err := parsePins(pinsText)
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{}
	for _, s := range suites {
		known[s.name] = true
		if _, ok := pins[s.source()]; !ok && s.pkg == "" && s.locate == nil {
			t.Errorf("pins.txt has no line %s", s.source())
		}
	}
	for _, e := range list {
		if !known[e.suite] {
			t.Errorf("expected.txt:%d: there is no suite %s", e.line, e.suite)
		}
	}
}

// TestReport prints counts and failures of two modes.
func TestReport(t *testing.T) {
	list, err := parseExpected(someExpected)
	if err != nil {
		t.Fatal(err)
	}
	records := []*record{
		{Suite: "fsx", Mode: "kernel", Results: []result{{Case: "plain", Status: failed}, {Case: "flushed", Status: notApplicable}}},
		{Suite: "fsx", Mode: "writeback=1", Results: []result{{Case: "plain", Status: failed}, {Case: "flushed", Status: passed}}},
	}
	var out strings.Builder
	report(&out, records, list)
	for _, want := range []string{
		"| fsx | 0 / 1 / 1 | - | 1 / 1 / 0 | - | - | - | - | - |\n",
		"| fsx | `plain` | kernel, writeback=1 | D1, of all modes |\n",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the report lacks %q:\n%s", want, out.String())
		}
	}
}

// TestCompareCases orders by the number at the end of a name.
func TestCompareCases(t *testing.T) {
	if compareCases("chmod/00:9", "chmod/00:10") >= 0 || compareCases("a/2", "b/1") >= 0 {
		t.Error("numbers are not compared as numbers")
	}
}
