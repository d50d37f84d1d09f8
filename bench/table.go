package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
)

// tableFormat writes one table: a title, and rows of which the first is the header.
type tableFormat func(b *strings.Builder, title string, rows [][]string) error

// print writes the conditions, a table for each group of workloads, and what was left out.
func (r *report) print(out io.Writer, write tableFormat) error {
	var b strings.Builder
	quick := ""
	if r.Quick {
		quick = ", quick"
	}
	fmt.Fprintf(&b, "%s, %d rounds%s, in %s\n%s\n", r.Date, r.Rounds, quick, r.Took.Round(time.Second), r.Machine)
	for _, line := range r.Layers {
		fmt.Fprintln(&b, line)
	}
	for _, c := range r.Candidates {
		fmt.Fprintf(&b, "%s: %s\n", c.Name, c.Version)
	}
	if len(r.Tools) > 0 {
		fmt.Fprintln(&b, strings.Join(r.Tools, "; "))
	}
	fmt.Fprintf(&b, "Medians; in brackets the ratio to %s: median (least to most) of the rounds.\n", base)
	b.WriteString(aboutLeast(r.emptyRequest()))
	for _, g := range groups {
		if err := write(&b, string(g), r.rows(g)); err != nil {
			return err
		}
	}
	if err := write(&b, "Requests", r.requestRows()); err != nil {
		return err
	}
	if len(r.LeftOut) > 0 {
		fmt.Fprint(&b, "\nLeft out:\n\n")
		for _, o := range r.LeftOut {
			fmt.Fprintf(&b, "- %s\n", o)
		}
	}
	_, err := io.WriteString(out, b.String())
	return err
}

// rows returns the header and the results of a group. Empty: there are no results.
func (r *report) rows(g group) [][]string {
	header := []string{"workload"}
	for _, c := range r.Candidates {
		header = append(header, c.Name)
	}
	rows := [][]string{header}
	for _, result := range r.Results {
		if result.Group != g {
			continue
		}
		row := []string{result.Name}
		for _, c := range r.Candidates {
			row = append(row, result.cell(c.Name))
		}
		rows = append(rows, row)
	}
	return rows
}

func (r *result) cell(candidate string) string {
	f := r.figures(candidate)
	if f == nil {
		return "-"
	}
	cell := short(f.Median, r.Unit)
	if f.Ratio != nil {
		cell += fmt.Sprintf(" [%s (%s to %s)]", decimals(f.Ratio.Median), decimals(f.Ratio.Min), decimals(f.Ratio.Max))
	}
	return cell
}

// requestRows returns the requests that were counted, and their cost at the least.
func (r *report) requestRows() [][]string {
	empty := r.emptyRequest()
	rows := [][]string{{"workload", "candidate", "least", "requests"}}
	for _, result := range r.Results {
		for _, f := range result.Figures {
			if f.Requests != nil {
				rows = append(rows, []string{result.Name, f.Candidate, r.least(&result, &f, empty), f.Requests.String()})
			}
		}
	}
	return rows
}

func terminalTable(b *strings.Builder, title string, rows [][]string) error {
	if len(rows) < 2 {
		return nil
	}
	fmt.Fprintf(b, "\n%s\n", title)
	w := tabwriter.NewWriter(b, 0, 0, 3, ' ', 0)
	for _, row := range rows {
		fmt.Fprintln(w, strings.Join(row, "\t"))
	}
	return w.Flush()
}

func markdownTable(b *strings.Builder, title string, rows [][]string) error {
	if len(rows) < 2 {
		return nil
	}
	fmt.Fprintf(b, "\n### %s\n\n| %s |\n|%s\n", title, strings.Join(rows[0], " | "), strings.Repeat("---|", len(rows[0])))
	for _, row := range rows[1:] {
		fmt.Fprintf(b, "| %s |\n", strings.Join(row, " | "))
	}
	return nil
}

// decimals formats a ratio. 0.05 needs more decimals than 20.
func decimals(ratio float64) string {
	switch {
	case ratio < 0.1:
		return fmt.Sprintf("%.3f", ratio)
	case ratio < 100:
		return fmt.Sprintf("%.2f", ratio)
	default:
		return fmt.Sprintf("%.0f", ratio)
	}
}

// short formats a figure with three digits and its unit.
func short(value float64, u unit) string {
	if u == bytesUnit {
		switch {
		case value < 10<<10:
			return fmt.Sprintf("%.0f B", value)
		case value < 10<<20:
			return fmt.Sprintf("%.0f KiB", value/(1<<10))
		default:
			return fmt.Sprintf("%.0f MiB", value/(1<<20))
		}
	}
	d := time.Duration(value)
	switch {
	case d < time.Millisecond:
		return fmt.Sprintf("%.0f µs", d.Seconds()*1e6)
	case d < 10*time.Millisecond:
		return fmt.Sprintf("%.2f ms", d.Seconds()*1000)
	case d < time.Second:
		return fmt.Sprintf("%.0f ms", d.Seconds()*1000)
	default:
		return fmt.Sprintf("%.2f s", d.Seconds())
	}
}
