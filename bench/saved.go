package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
)

// publish writes the report in every form of the command line.
func (r *report) publish(opts *options, out io.Writer) error {
	if opts.json != "" {
		text, err := json.MarshalIndent(r, "", "  ")
		if err != nil {
			return err
		}
		if err := os.WriteFile(opts.json, append(text, '\n'), 0o644); err != nil {
			return err
		}
	}
	if opts.charts != "" {
		if err := r.charts(opts.charts); err != nil {
			return fmt.Errorf("charts: %w", err)
		}
	}
	format := terminalTable
	if opts.markdown {
		format = markdownTable
	}
	return r.print(out, format)
}

func readReport(path string) (*report, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	r := &report{}
	if err := json.Unmarshal(text, r); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return r, nil
}

// readReports merges the reports of several runs on the same machine.
func readReports(paths []string) (*report, error) {
	merged, err := readReport(paths[0])
	if err != nil {
		return nil, err
	}
	for _, path := range paths[1:] {
		more, err := readReport(path)
		if err != nil {
			return nil, err
		}
		if err := merged.merge(more); err != nil {
			return nil, fmt.Errorf("%s does not go with %s: %w", path, paths[0], err)
		}
	}
	return merged, nil
}

// merge adds another run. The later figures of a workload replace the earlier ones.
func (r *report) merge(more *report) error {
	if r.Quick != more.Quick || r.Rounds != more.Rounds || r.Machine.Kernel != more.Machine.Kernel || r.Machine.User != more.Machine.User {
		return errors.New("other conditions")
	}
	for _, c := range more.Candidates {
		switch i := slices.IndexFunc(r.Candidates, func(known candidateInfo) bool { return known.Name == c.Name }); {
		case i < 0:
			r.Candidates = append(r.Candidates, c)
		case r.Candidates[i] != c:
			return fmt.Errorf("%s is %q, and %q", c.Name, r.Candidates[i].Version, c.Version)
		}
	}
	for _, row := range more.Results {
		i := slices.IndexFunc(r.Results, func(known result) bool { return known.Name == row.Name })
		if i < 0 {
			r.Results = append(r.Results, row)
		} else {
			r.Results[i] = row
		}
	}
	r.Took += more.Took
	r.Date = max(r.Date, more.Date)
	r.Machine.Load = strings.Join(union(strings.Split(r.Machine.Load, ", "), []string{more.Machine.Load}), ", ")
	r.Tools, r.Layers, r.LeftOut = union(r.Tools, more.Tools), union(r.Layers, more.Layers), union(r.LeftOut, more.LeftOut)
	return nil
}

// union returns a, and what only b has.
func union[T comparable](a, b []T) []T {
	for _, v := range b {
		if !slices.Contains(a, v) {
			a = append(a, v)
		}
	}
	return a
}
