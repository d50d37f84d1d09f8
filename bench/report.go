package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// A report is everything that was measured, and on what.
type report struct {
	Date       string          `json:"date"`
	Machine    machine         `json:"machine"`
	Tree       string          `json:"tree"`
	Rounds     int             `json:"rounds"`
	Quick      bool            `json:"quick"`
	Candidates []candidateInfo `json:"candidates"`
	Results    []result        `json:"results"`
}

type candidateInfo struct {
	Name    string `json:"name"`
	Version string `json:"version"`
}

// A result is one workload, on all candidates.
type result struct {
	Workload string    `json:"workload"`
	About    string    `json:"about"`
	Figures  []figures `json:"candidates"`
}

// figures are what one candidate needed for one workload.
type figures struct {
	Candidate string          `json:"candidate"`
	Samples   []time.Duration `json:"samples_ns"`
	Median    time.Duration   `json:"median_ns"`
	// Ratio compares with the base in the same round; nil where the base was not measured.
	Ratio *spread `json:"ratio,omitempty"`
}

// A spread is the median of the rounds' ratios, and the least and the most of them.
type spread struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
}

// newResult computes medians and ratios.
func newResult(w workload, candidates []candidate, samples map[string][]time.Duration) result {
	out := result{Workload: w.name, About: w.about}
	for _, c := range candidates {
		f := figures{Candidate: c.name, Samples: samples[c.name], Median: median(samples[c.name])}
		if len(samples[base]) > 0 {
			f.Ratio = ratio(samples[c.name], samples[base])
		}
		out.Figures = append(out.Figures, f)
	}
	return out
}

// median is the middle of the values, or the larger of the two in the middle.
func median[T cmp.Ordered](values []T) T {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[len(sorted)/2]
}

func ratio(samples, base []time.Duration) *spread {
	var ratios []float64
	for i := range samples {
		ratios = append(ratios, float64(samples[i])/float64(base[i]))
	}
	return &spread{Median: median(ratios), Min: slices.Min(ratios), Max: slices.Max(ratios)}
}

func (r *report) writeJSON(path string) error {
	out, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(out, '\n'), 0o644)
}

// print writes the conditions and the table.
func (r *report) print(out io.Writer, markdown bool) error {
	var b strings.Builder
	quick := ""
	if r.Quick {
		quick = ", quick"
	}
	fmt.Fprintf(&b, "%s, %d rounds%s\n%s\n%s\n", r.Date, r.Rounds, quick, r.Machine, r.Tree)
	for _, c := range r.Candidates {
		fmt.Fprintf(&b, "%s: %s\n", c.Name, c.Version)
	}
	fmt.Fprintf(&b, "Medians; in brackets the ratio to %s: median (least to most) of the rounds.\n\n", base)
	if markdown {
		r.markdown(&b)
	} else if err := r.table(&b); err != nil {
		return err
	}
	_, err := io.WriteString(out, b.String())
	return err
}

func (r *report) table(b *strings.Builder) error {
	w := tabwriter.NewWriter(b, 0, 0, 3, ' ', 0)
	fmt.Fprintln(w, strings.Join(r.header(), "\t"))
	for _, result := range r.Results {
		fmt.Fprintln(w, strings.Join(result.row(), "\t"))
	}
	return w.Flush()
}

func (r *report) markdown(b *strings.Builder) {
	header := r.header()
	fmt.Fprintf(b, "| %s |\n|%s\n", strings.Join(header, " | "), strings.Repeat("---|", len(header)))
	for _, result := range r.Results {
		fmt.Fprintf(b, "| %s |\n", strings.Join(result.row(), " | "))
	}
}

func (r *report) header() []string {
	header := []string{"workload"}
	for _, c := range r.Candidates {
		header = append(header, c.Name)
	}
	return header
}

func (r *result) row() []string {
	row := []string{r.Workload}
	for _, f := range r.Figures {
		cell := short(f.Median)
		if f.Ratio != nil && f.Candidate != base {
			cell += fmt.Sprintf(" [%.2f (%.2f to %.2f)]", f.Ratio.Median, f.Ratio.Min, f.Ratio.Max)
		}
		row = append(row, cell)
	}
	return row
}

// short shows three digits of a duration.
func short(d time.Duration) string {
	switch {
	case d < 10*time.Millisecond:
		return fmt.Sprintf("%.2f ms", d.Seconds()*1000)
	case d < time.Second:
		return fmt.Sprintf("%.0f ms", d.Seconds()*1000)
	default:
		return fmt.Sprintf("%.2f s", d.Seconds())
	}
}
