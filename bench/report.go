package main

import (
	"cmp"
	"slices"
	"strings"
	"time"
)

// A report has everything that was measured, and the machine.
type report struct {
	Date       string          `json:"date"`
	Machine    machine         `json:"machine"`
	Tools      []string        `json:"tools"`
	Layers     []string        `json:"layers"`
	Rounds     int             `json:"rounds"`
	Took       time.Duration   `json:"took_ns"`
	Quick      bool            `json:"quick"`
	Candidates []candidateInfo `json:"candidates"`
	Results    []result        `json:"results"`
	LeftOut    []omission      `json:"left_out"`
}

type candidateInfo struct {
	Name    string `json:"name"`
	Version string `json:"version"`
}

// An omission is a workload on a candidate that was not measured, and why. Empty stands for all of
// them.
type omission struct {
	Workload  string `json:"workload,omitempty"`
	Candidate string `json:"candidate,omitempty"`
	Why       string `json:"why"`
}

func (o omission) String() string {
	what := o.Workload
	switch {
	case what == "":
		what = o.Candidate
	case o.Candidate != "":
		what += " on " + o.Candidate
	}
	return what + ": " + strings.ReplaceAll(o.Why, "\n", " ")
}

// A result is one row: one reading of a workload, on all candidates that it was taken on.
type result struct {
	Name    string    `json:"name"`
	About   string    `json:"about"`
	Group   group     `json:"group"`
	Unit    unit      `json:"unit"`
	Figures []figures `json:"candidates"`
}

// figures are those of one candidate, in the unit of the result. Less is better.
type figures struct {
	Candidate string    `json:"candidate"`
	Samples   []float64 `json:"samples"`
	Median    float64   `json:"median"`
	// Ratio is the ratio to the base in the same round. nil: the base was not measured, or is this
	// candidate.
	Ratio *spread `json:"ratio,omitempty"`
	// Requests are those of one session, if they were counted. Of several readings, the first has
	// them.
	Requests counts `json:"requests,omitempty"`
}

// A spread is the median of the rounds' ratios, and the least and the most of them.
type spread struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
}

// figures returns those of a candidate. nil: not measured.
func (r *result) figures(candidate string) *figures {
	i := slices.IndexFunc(r.Figures, func(f figures) bool { return f.Candidate == candidate })
	if i < 0 {
		return nil
	}
	return &r.Figures[i]
}

// samples collect the readings of one workload.
type samples struct {
	// rows are the readings' names and units, in the order met.
	rows []reading
	// values are by row and candidate, one for each round.
	values   map[string]map[string][]float64
	requests map[string]counts
}

func newSamples() *samples {
	return &samples{values: map[string]map[string][]float64{}, requests: map[string]counts{}}
}

func (s *samples) add(candidate string, readings []reading, requests counts) {
	for _, m := range readings {
		if s.values[m.name] == nil {
			s.rows = append(s.rows, m)
			s.values[m.name] = map[string][]float64{}
		}
		s.values[m.name][candidate] = append(s.values[m.name][candidate], m.value)
	}
	if requests != nil {
		s.requests[candidate] = requests
	}
}

// drop removes a candidate that has failed, because ratios need the same rounds of all candidates.
func (s *samples) drop(candidate string) {
	for _, row := range s.values {
		delete(row, candidate)
	}
	delete(s.requests, candidate)
}

// results computes medians and ratios.
func (s *samples) results(w workload, candidates []candidate) []result {
	var all []result
	for i, row := range s.rows {
		out := result{Name: row.name, About: w.about, Group: w.group, Unit: row.unit}
		values := s.values[row.name]
		for _, c := range candidates {
			taken := values[c.name]
			if len(taken) == 0 {
				continue
			}
			f := figures{Candidate: c.name, Samples: taken, Median: median(taken)}
			if i == 0 {
				f.Requests = s.requests[c.name]
			}
			if c.name != base && len(values[base]) > 0 {
				f.Ratio = ratio(taken, values[base])
			}
			out.Figures = append(out.Figures, f)
		}
		if len(out.Figures) > 0 {
			all = append(all, out)
		}
	}
	return all
}

// median is the middle of the values, or the larger of the two in the middle.
func median[T cmp.Ordered](values []T) T {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[len(sorted)/2]
}

// ratio pairs the samples of each round.
func ratio(samples, base []float64) *spread {
	var ratios []float64
	for i := range samples {
		ratios = append(ratios, samples[i]/base[i])
	}
	return &spread{Median: median(ratios), Min: slices.Min(ratios), Max: slices.Max(ratios)}
}
