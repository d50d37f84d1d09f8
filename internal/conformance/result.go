package main

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// A status is the outcome of one case.
type status string

const (
	passed        status = "passed"
	failed        status = "failed"
	notApplicable status = "not applicable"
)

// A result is one case of a suite.
type result struct {
	Case   string `json:"case"` // without blanks
	Status status `json:"status"`
	Detail string `json:"detail,omitempty"` // the first line of what the suite reports
}

// A record is what is kept of one suite in one mode.
type record struct {
	Suite   string        `json:"suite"`
	Mode    string        `json:"mode"`
	Version string        `json:"version"` // of the suite
	Program string        `json:"program"` // what is mounted, with its version
	Machine string        `json:"machine"`
	Date    time.Time     `json:"date"`
	Took    time.Duration `json:"took"`
	Results []result      `json:"results"`
}

// count returns the number of cases of a status.
func (r *record) count(s status) (n int) {
	for _, c := range r.Results {
		if c.Status == s {
			n++
		}
	}
	return n
}

// path is the name of the files of a suite and mode, without extension.
func recordPath(out, suite, mode string) string { return filepath.Join(out, suite+"."+mode) }

// save writes a record to the folder of results.
func (r *record) save(out string) error {
	text, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(recordPath(out, r.Suite, r.Mode)+".json", text, 0o644)
}

// readRecords reads all records of a folder, in the order of suites and modes.
func readRecords(out string) (records []*record, err error) {
	for _, s := range suites {
		for _, m := range modes {
			text, err := os.ReadFile(recordPath(out, s.name, m.name) + ".json")
			if errors.Is(err, os.ErrNotExist) {
				continue
			}
			r := &record{}
			if err := errors.Join(err, json.Unmarshal(text, r)); err != nil {
				return nil, err
			}
			slices.SortStableFunc(r.Results, func(a, b result) int { return compareCases(a.Case, b.Case) })
			records = append(records, r)
		}
	}
	return records, nil
}
