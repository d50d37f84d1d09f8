package main

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"io"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestMedianAndRatio(t *testing.T) {
	if got := median([]int{5, 1, 3}); got != 3 {
		t.Errorf("median is %d", got)
	}
	got := ratio([]float64{10, 30, 20}, []float64{10, 10, 10})
	if want := (spread{Median: 2, Min: 1, Max: 3}); *got != want {
		t.Errorf("ratio is %+v, want %+v", *got, want)
	}
}

// TestSamples pairs rounds, and keeps nothing of a candidate that failed.
func TestSamples(t *testing.T) {
	s := newSamples()
	for round := range 3 {
		factor := float64(round + 1)
		s.add(base, []reading{{"mount", nanoseconds, 10 * factor}, {"size", bytesUnit, 5}}, nil)
		s.add("cached", []reading{{"mount", nanoseconds, 30 * factor}, {"size", bytesUnit, 10}}, counts{"READ": 2})
		s.add("broken", []reading{{"mount", nanoseconds, 1}, {"size", bytesUnit, 1}}, nil)
	}
	s.drop("broken")
	got := s.results(workload{name: "w", about: "a", group: reads}, []candidate{{name: base}, {name: "broken"}, {name: "cached"}})
	want := []result{
		{Name: "mount", About: "a", Group: reads, Unit: nanoseconds, Figures: []figures{
			{Candidate: base, Samples: []float64{10, 20, 30}, Median: 20},
			{Candidate: "cached", Samples: []float64{30, 60, 90}, Median: 60, Ratio: &spread{3, 3, 3}, Requests: counts{"READ": 2}}}},
		{Name: "size", About: "a", Group: reads, Unit: bytesUnit, Figures: []figures{
			{Candidate: base, Samples: []float64{5, 5, 5}, Median: 5},
			{Candidate: "cached", Samples: []float64{10, 10, 10}, Median: 10, Ratio: &spread{2, 2, 2}}}},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("results %+v, want %+v", got, want)
	}
}

// TestLeast adds to the native time what so many missing names take.
func TestLeast(t *testing.T) {
	row := func(name string, medians map[string]float64, requests counts) result {
		r := result{Name: name}
		for _, candidate := range []string{native, base, "cached"} {
			if m, ok := medians[candidate]; ok {
				r.Figures = append(r.Figures, figures{Candidate: candidate, Median: m})
			}
		}
		r.Figures[len(r.Figures)-1].Requests = requests
		return r
	}
	r := &report{Results: []result{
		row("untar", map[string]float64{native: 5e4, base: 1e5, "cached": 5e5}, counts{"WRITE": 10, "FORGET": 50}),
		row("without native", map[string]float64{base: 1e5, "cached": 5e5}, counts{"WRITE": 10}),
	}}
	least := func() []string {
		var all []string
		for _, row := range r.requestRows()[1:] {
			all = append(all, row[2])
		}
		return all
	}
	if got := least(); !slices.Equal(got, []string{"", ""}) {
		t.Errorf("without a row of missing names: %q", got)
	}
	names := map[string]float64{native: 1e5, base: 1e6, "cached": 3e5}
	r.Results = append(r.Results, row(missingNames+", 128 layers", names, counts{"LOOKUP": 20}))
	if got := r.emptyRequest(); got != 1e4 {
		t.Errorf("an empty request takes %v", got)
	}
	if got := least(); !slices.Equal(got, []string{"1.50", "", "0.30"}) {
		t.Errorf("least: %q", got)
	}
	if about := aboutLeast(1e4); !strings.Contains(about, "10.0 µs") {
		t.Error(about)
	}
}

func TestShort(t *testing.T) {
	for _, c := range []struct {
		value float64
		unit  unit
		want  string
	}{
		{14e3, nanoseconds, "14 µs"}, {2.5e6, nanoseconds, "2.50 ms"}, {25e6, nanoseconds, "25 ms"},
		{2.5e9, nanoseconds, "2.50 s"}, {779, bytesUnit, "779 B"}, {20 << 10, bytesUnit, "20 KiB"}, {300 << 20, bytesUnit, "300 MiB"},
	} {
		if got := short(c.value, c.unit); got != c.want {
			t.Errorf("short(%v, %s) = %q, want %q", c.value, c.unit, got, c.want)
		}
	}
}

// sample is a report with everything in it.
func sample() *report {
	r := &report{
		Date: "2026-01-02", Machine: machine{Kernel: "6.18", CPUs: 2}, Rounds: 2, Took: 100 * time.Second, Tools: []string{"fio: 3"},
		Layers: []string{"tree: 5 files"}, Candidates: []candidateInfo{{"native", "-"}, {base, "1"}, {"cached", "2"}, {"<peer>", "3"}},
		LeftOut: []omission{{Workload: "random read", Why: "no fio"}, {Workload: "find", Candidate: "<peer>", Why: "failed: <x>"}},
	}
	for _, w := range []workload{{name: "find", group: reads}, {name: "missing names", group: deep}, {name: "untar", group: changes},
		{name: "memory", group: weights}} {
		s := newSamples()
		u := nanoseconds
		if w.group == weights {
			u = bytesUnit
		} else {
			s.add(base, []reading{{w.name, u, 1e9}}, nil)
		}
		s.add("cached", []reading{{w.name, u, 1.5e9}}, counts{"READ": 7, "LOOKUP": 2})
		r.Results = append(r.Results, s.results(w, []candidate{{name: base}, {name: "cached"}, {name: "<peer>"}})...)
	}
	return r
}

func TestPrint(t *testing.T) {
	for _, format := range []tableFormat{terminalTable, markdownTable} {
		var out bytes.Buffer
		if err := sample().print(&out, format); err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{"2026-01-02, 2 rounds, in 1m40s", "cached: 2", "fio: 3", "1.50 s [1.50 (1.50 to 1.50)]", "1431 MiB",
			"9: READ 7, LOOKUP 2", "find on <peer>: failed: <x>", "random read: no fio"} {
			if !strings.Contains(out.String(), want) {
				t.Errorf("no %q in:\n%s", want, &out)
			}
		}
	}
}

// TestFrom writes a report and shows it again: the same, without measuring.
func TestFrom(t *testing.T) {
	dir := t.TempDir()
	file, again := filepath.Join(dir, "a.json"), filepath.Join(dir, "b.json")
	var first, second bytes.Buffer
	if err := sample().publish(parsed(t, "-json", file), &first); err != nil {
		t.Fatal(err)
	}
	opts := parsed(t, "-from", file, "-json", again, "-charts", filepath.Join(dir, "charts"))
	if err := bench(context.Background(), opts, &second, os.Stderr); err != nil {
		t.Fatal(err)
	}
	if first.String() != second.String() {
		t.Errorf("first\n%s, then\n%s", &first, &second)
	}
	got, err := readReport(again)
	if err != nil || !reflect.DeepEqual(got, sample()) {
		t.Errorf("%v: %+v", err, got)
	}
	if n := count(t, filepath.Join(dir, "charts")); n != 3 {
		t.Errorf("%d charts: memory has no ratios, the rest of the groups have", n)
	}
	if err := bench(context.Background(), parsed(t, "-from", filepath.Join(dir, "charts")), &second, os.Stderr); err == nil {
		t.Error("a directory is no report")
	}
}

// TestMerge puts runs together: of the same conditions, the later one counting.
func TestMerge(t *testing.T) {
	r, more := sample(), sample()
	more.Results[0].Figures[0].Median = 5
	more.Results[1].Name = "mount"
	more.Candidates = append(more.Candidates, candidateInfo{"late", "4"})
	more.Tools, more.LeftOut = []string{"git: 2"}, more.LeftOut[:1]
	if err := r.merge(more); err != nil {
		t.Fatal(err)
	}
	if len(r.Results) != 5 || r.Results[0].Figures[0].Median != 5 || r.Results[4].Name != "mount" {
		t.Errorf("results %+v", r.Results)
	}
	if len(r.Candidates) != 5 || len(r.LeftOut) != 2 || !slices.Equal(r.Tools, []string{"fio: 3", "git: 2"}) || r.Took != 200*time.Second {
		t.Errorf("merged %+v", r)
	}
	for what, change := range map[string]func(*report){
		"rounds":  func(r *report) { r.Rounds = 7 },
		"kernel":  func(r *report) { r.Machine.Kernel = "5.4" },
		"program": func(r *report) { r.Candidates[2].Version = "new" },
	} {
		odd := sample()
		change(odd)
		if err := r.merge(odd); err == nil {
			t.Errorf("other %s: merged", what)
		}
	}
}

// TestCharts reads what is drawn as XML, and looks for the names.
func TestCharts(t *testing.T) {
	dir := t.TempDir()
	if err := sample().charts(dir); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(filepath.Join(dir, chartFiles[reads]))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var text strings.Builder
	paths := 0
	for decoder := xml.NewDecoder(f); ; {
		token, err := decoder.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		switch token := token.(type) {
		case xml.CharData:
			text.Write(token)
		case xml.StartElement:
			if token.Name.Local == "path" {
				paths++
			}
		}
	}
	for _, want := range []string{"Reading", "2026-01-02", "find", "cached", "<peer>", "2x"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("no %q in the chart: %s", want, text.String())
		}
	}
	if paths == 0 {
		t.Error("nothing is drawn")
	}
}

func TestTicks(t *testing.T) {
	var labels []string
	for _, tick := range (ratioTicks{}).Ticks(math.Log10(0.04), math.Log10(12)) {
		labels = append(labels, tick.Label)
	}
	if got, want := strings.Join(labels, " "), "0.05x 0.1x 0.2x 0.5x 1x 2x 5x 10x"; got != want {
		t.Errorf("ticks %s, want %s", got, want)
	}
}
