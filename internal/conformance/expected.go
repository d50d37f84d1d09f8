package main

import (
	_ "embed"
	"fmt"
	"path"
	"slices"
	"strings"
)

//go:embed expected.txt
var expectedText string

// An expectation is a line of expected.txt: cases that fail.
type expectation struct {
	line  int
	suite string
	modes []string // nil is all modes of the program
	cases string   // a pattern of path.Match
	// sometimes: the cases depend on the machine or on timing, so they may pass.
	sometimes bool
	// asKernel: the cases fail exactly where they fail with the kernel's overlayfs.
	asKernel bool
	reason   string // begins with the number of a deviation, if there is one
}

// parseExpected reads expected.txt.
func parseExpected(text string) (list []expectation, err error) {
	for n, line := range strings.Split(text, "\n") {
		if line == "" || line[0] == '#' {
			continue
		}
		f := strings.Fields(line)
		if len(f) < 4 {
			return nil, fmt.Errorf("expected.txt:%d: suite, modes, case and reason expected", n+1)
		}
		e := expectation{line: n + 1, suite: f[0], reason: strings.Join(f[3:], " ")}
		e.cases, e.sometimes = strings.CutPrefix(f[2], "~")
		e.cases, e.asKernel = strings.CutPrefix(e.cases, "=")
		if f[1] != "*" {
			e.modes = strings.Split(f[1], ",")
		}
		for _, m := range e.modes {
			if _, ok := modeNamed(m); !ok {
				return nil, fmt.Errorf("expected.txt:%d: there is no mode %s", n+1, m)
			}
		}
		if _, err := path.Match(e.cases, ""); err != nil {
			return nil, fmt.Errorf("expected.txt:%d: the case: %w", n+1, err)
		}
		list = append(list, e)
	}
	return list, nil
}

// concerns reports whether an expectation is about a suite and mode. The kernel's failures are not
// checked: the reasons of the program's are those of the kernel's too.
func (e *expectation) concerns(suite, name string) bool {
	m, _ := modeNamed(name)
	return e.suite == suite && (m.kernel || e.modes == nil || slices.Contains(e.modes, name))
}

// covers reports whether an expectation is about a case.
func (e *expectation) covers(name string) bool {
	ok, _ := path.Match(e.cases, name)
	return ok
}

// surprises compares a record of the program with the list: failures that are not on it, lines of
// which no case failed, though one ran and must fail, and cases of an asKernel line that differ
// from the kernel's record. That is nil if there is none.
func surprises(r, kernels *record, list []expectation) (lines []string) {
	list = slices.DeleteFunc(slices.Clone(list), func(e expectation) bool { return !e.concerns(r.Suite, r.Mode) })
	ran, failures := make([]bool, len(list)), make([]bool, len(list))
	failsInKernel := map[string]bool{}
	if kernels != nil {
		for _, c := range kernels.Results {
			failsInKernel[c.Case] = c.Status == failed
		}
	}
	for _, c := range r.Results {
		known := false
		for i := range list {
			if !list[i].covers(c.Case) {
				continue
			}
			ran[i], known = true, true
			failures[i] = failures[i] || c.Status == failed
			expected, some := failsInKernel[c.Case]
			switch {
			case !list[i].asKernel || some && expected == (c.Status == failed):
			case some:
				lines = append(lines, fmt.Sprintf("%s %s %s: %s, but not with the kernel's overlayfs", r.Suite, r.Mode, c.Case, c.Status))
			default:
				known = false
			}
		}
		if c.Status == failed && !known {
			lines = append(lines, fmt.Sprintf("%s %s %s fails: %s", r.Suite, r.Mode, c.Case, c.Detail))
		}
	}
	for i, e := range list {
		if ran[i] && !failures[i] && !e.sometimes && !e.asKernel {
			lines = append(lines, fmt.Sprintf("%s %s %s does not fail, but expected.txt:%d lists it", r.Suite, r.Mode, e.cases, e.line))
		}
	}
	return lines
}
