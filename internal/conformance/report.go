package main

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
)

// report writes the tables of docs/CONFORMANCE.md: counts, and failures of the program by name.
func report(out io.Writer, records []*record, list []expectation) {
	if len(records) == 0 {
		return
	}
	fmt.Fprintln(out, "Passed / failed / not applicable:")
	fmt.Fprintln(out)
	fmt.Fprint(out, "| suite |")
	for _, m := range modes {
		fmt.Fprintf(out, " %s |", m.name)
	}
	fmt.Fprintf(out, "\n|---|%s\n", strings.Repeat("---|", len(modes)))
	for _, s := range suites {
		row, some := "| "+s.name+" |", false
		for _, m := range modes {
			cell := "-"
			if r := find(records, s.name, m.name); r != nil {
				cell = fmt.Sprintf("%d / %d / %d", r.count(passed), r.count(failed), r.count(notApplicable))
				some = true
			}
			row += " " + cell + " |"
		}
		if some {
			fmt.Fprintln(out, row)
		}
	}
	reportFailures(out, records, list)
}

func find(records []*record, suite, mode string) *record {
	for _, r := range records {
		if r.Suite == suite && r.Mode == mode {
			return r
		}
	}
	return nil
}

// reportFailures writes each line of expected.txt with the cases that failed, and all other
// failures.
func reportFailures(out io.Writer, records []*record, list []expectation) {
	fmt.Fprint(out, "\n| suite | case | fails in | reason |\n|---|---|---|---|\n")
	type failure struct{ suite, name, reason string }
	var order []failure
	in := map[failure][]string{}
	for _, r := range records {
		for _, c := range r.Results {
			if c.Status != failed {
				continue
			}
			f := failure{r.Suite, c.Case, ""}
			for _, e := range list {
				if f.reason == "" && e.concerns(r.Suite, r.Mode) && e.covers(c.Case) {
					f.name, f.reason = e.cases, e.reason
				}
			}
			if !slices.Contains(order, f) {
				order = append(order, f)
			}
			if !slices.Contains(in[f], r.Mode) {
				in[f] = append(in[f], r.Mode)
			}
		}
	}
	for _, f := range order {
		where := strings.Join(in[f], ", ")
		if !slices.ContainsFunc(in[f], func(name string) bool { m, _ := modeNamed(name); return !m.kernel }) {
			f.reason = "does not fail here"
		}
		fmt.Fprintf(out, "| %s | `%s` | %s | %s |\n", f.suite, f.name, where, f.reason)
	}
}

// compareCases orders names with numbers in them by these numbers.
func compareCases(a, b string) int {
	split := func(s string) (string, int) {
		digits := len(s) - len(strings.TrimRight(s, "0123456789"))
		n, _ := strconv.Atoi(s[len(s)-digits:])
		return s[:len(s)-digits], n
	}
	wordA, numberA := split(a)
	wordB, numberB := split(b)
	if wordA != wordB {
		return strings.Compare(wordA, wordB)
	}
	return numberA - numberB
}
