package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"
)

// A runner does workloads on candidates.
type runner struct {
	dir        string
	layouts    *layouts
	candidates []candidate
	rounds     int
	progress   *progress
}

// measure does every workload on every candidate in every round. The candidates alternate within a round, and each round
// begins with another of them.
func (r *runner) measure(ctx context.Context, workloads []workload) ([]result, error) {
	var results []result
	step, steps := 0, len(workloads)*len(r.candidates)*r.rounds
	for _, w := range workloads {
		samples := map[string][]time.Duration{}
		for round := range r.rounds {
			for i := range r.candidates {
				c := r.candidates[(i+round)%len(r.candidates)]
				step++
				r.progress.step(step, steps, fmt.Sprintf("%s, round %d: %s", w.name, round+1, c.name))
				took, err := r.once(ctx, w, c)
				if err != nil {
					return nil, fmt.Errorf("%s on %s: %w", w.name, c.name, err)
				}
				samples[c.name] = append(samples[c.name], took)
			}
		}
		results = append(results, newResult(w, r.candidates, samples))
	}
	return results, nil
}

// once does a workload in a session of its own and says how long it took.
func (r *runner) once(ctx context.Context, w workload, c candidate) (took time.Duration, err error) {
	dir, err := os.MkdirTemp(r.dir, "session-")
	if err != nil {
		return 0, err
	}
	s := &session{layout: w.layout(r.layouts), writes: w.writes, dir: dir}
	defer func() { err = errors.Join(err, s.detach()) }()
	if err := c.attach(ctx, s); err != nil {
		return 0, err
	}
	t := &task{root: s.root, layouts: r.layouts}
	if w.prepare != nil {
		if err := w.prepare(ctx, t); err != nil {
			return 0, err
		}
	}
	// What others left to be written back is not this one's to pay for.
	if err := run(ctx, "", "sync", "-f", r.dir); err != nil {
		return 0, err
	}
	var times []time.Duration
	for range max(1, w.repeats) {
		start := time.Now()
		if err := w.do(ctx, t); err != nil {
			return 0, err
		}
		times = append(times, time.Since(start))
	}
	return median(times), nil
}
