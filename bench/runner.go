package main

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// A runner runs workloads on candidates.
type runner struct {
	dir        string
	layouts    *layouts
	candidates []candidate
	rounds     int
	requests   bool
	progress   *progress
	// leftOut are what could not be measured.
	leftOut []omission
	// tried has the result of each candidate with each workload's mount options.
	tried map[string]error
}

// maxSession is how long one session may take. A daemon that hangs must not stop the whole run.
const maxSession = 20 * time.Minute

// measure runs every workload on every candidate in every round. The candidates alternate within a
// round, and each round begins with another of them. With an error, the results are those of the
// workloads that have succeeded.
func (r *runner) measure(ctx context.Context, workloads []workload) ([]result, error) {
	steps := 0
	for _, w := range workloads {
		steps += r.roundsOf(w) * len(r.candidates)
	}
	r.progress.begin(steps)
	var results []result
	failures := 0
	for _, w := range workloads {
		measured, failed := r.workload(ctx, w)
		if ctx.Err() != nil {
			return results, fmt.Errorf("interrupted during %q: %w", w.name, ctx.Err())
		}
		results = append(results, measured...)
		failures += failed
	}
	if failures > 0 {
		return results, fmt.Errorf("%d measurements failed, see \"left out\"", failures)
	}
	return results, nil
}

func (r *runner) roundsOf(w workload) int {
	if w.rounds > 0 {
		return min(w.rounds, r.rounds)
	}
	return r.rounds
}

// workload measures one workload, and returns how many candidates have failed in it.
func (r *runner) workload(ctx context.Context, w workload) (results []result, failures int) {
	rounds := r.roundsOf(w)
	l, taking, err := r.prepare(ctx, w)
	if err != nil {
		r.leaveOut(w.name, "", err)
		if !errors.Is(err, errUnavailable) {
			failures++
		}
	}
	if len(taking) == 0 {
		r.progress.step(rounds*len(r.candidates), w.name)
		return nil, failures
	}
	rows := newSamples()
	gone := map[string]bool{}
	for round := range rounds {
		r.progress.step(len(r.candidates)-len(taking), w.name)
		for i := range taking {
			c := taking[(i+round)%len(taking)]
			r.progress.step(1, fmt.Sprintf("%s, round %d: %s", w.name, round+1, c.name))
			if gone[c.name] {
				continue
			}
			readings, requests, err := r.once(ctx, w, l, c, inRound(round))
			if ctx.Err() != nil {
				return nil, 0
			}
			if err != nil {
				gone[c.name] = true
				failures++
				rows.drop(c.name)
				r.leaveOut(w.name, c.name, fmt.Errorf("failed: %w", err))
				continue
			}
			rows.add(c.name, readings, requests)
		}
	}
	return rows.results(w, r.candidates), failures
}

// prepare makes the layers of a workload and finds the candidates that can run it. It reports those
// that cannot.
func (r *runner) prepare(ctx context.Context, w workload) (*layout, []candidate, error) {
	if err := w.missing(); err != nil {
		return nil, nil, err
	}
	r.progress.step(0, w.name+": making the layers")
	l, err := w.layout(r.layouts)
	if err != nil {
		return nil, nil, err
	}
	var taking []candidate
	for _, c := range r.candidates {
		if w.skips(c.kind) {
			continue
		}
		if err := r.accepts(ctx, c, w.options[c.kind]); err != nil {
			r.leaveOut(w.name, c.name, err)
			continue
		}
		taking = append(taking, c)
	}
	return l, taking, nil
}

// accepts reports whether a candidate mounts with a workload's options. It tries that once.
func (r *runner) accepts(ctx context.Context, c candidate, options string) error {
	if options == "" || c.kind == plain {
		return nil
	}
	if r.tried == nil {
		r.tried = map[string]error{}
	}
	key := c.name + " " + options
	err, known := r.tried[key]
	if !known {
		err = r.try(ctx, c, options)
		r.tried[key] = err
	}
	return err
}

// leaveOut records, and prints at once, what is not measured: a workload, a candidate, or a
// workload on a candidate.
func (r *runner) leaveOut(workload, candidate string, why error) {
	o := omission{Workload: workload, Candidate: candidate, Why: why.Error()}
	r.leftOut = append(r.leftOut, o)
	r.progress.printf("left out: %s", o)
}

// once runs a workload on a candidate, in as many sessions as it needs, and returns the medians.
// requests are counted in the first session.
func (r *runner) once(ctx context.Context, w workload, l *layout, c candidate, count counting) ([]reading, counts, error) {
	var medians []reading
	values := map[string][]float64{}
	var requests counts
	for i := range max(1, w.sessions) {
		readings, made, err := r.session(ctx, w, l, c, count.ofFirst(i))
		if err != nil {
			return nil, nil, err
		}
		if i == 0 {
			medians, requests = readings, made
		}
		for _, m := range readings {
			values[m.name] = append(values[m.name], m.value)
		}
	}
	for i := range medians {
		medians[i].value = median(values[medians[i].name])
	}
	return medians, requests, nil
}

// counting is whether requests are counted.
type counting int

const (
	notCounted counting = iota
	counted
)

// inRound returns how requests are counted in a round: in the first one alone.
func inRound(round int) counting { return counted.ofFirst(round) }

// ofFirst returns c for the first of several runs. The others are not counted.
func (c counting) ofFirst(i int) counting {
	if i > 0 {
		return notCounted
	}
	return c
}

// session runs a workload in a session of its own.
func (r *runner) session(ctx context.Context, w workload, l *layout, c candidate, count counting) (_ []reading, _ counts, err error) {
	ctx, cancel := context.WithTimeout(ctx, maxSession)
	defer cancel()
	if !r.requests || c.kind != ours || w.detached {
		count = notCounted
	}
	s, err := newSession(l, c, w.options[c.kind])
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, s.detach()) }()
	s.writes = w.writes
	if count == counted {
		s.log()
	}
	t := &task{root: s.root, layouts: r.layouts, session: s}
	if !w.detached {
		if err := s.attach(ctx); err != nil {
			return nil, nil, err
		}
		t.root = s.root
	}
	if w.prepare != nil {
		if err := w.prepare(ctx, t); err != nil {
			return nil, nil, err
		}
	}
	// Dirty pages of earlier sessions must not count in this one.
	if err := run(ctx, "", "sync", "-f", l.home); err != nil {
		return nil, nil, err
	}
	if w.gauge == nil {
		return w.timed(ctx, t, count)
	}
	var readings []reading
	requests, err := s.during(count, func() (err error) {
		readings, err = w.gauge(ctx, t)
		return err
	})
	return readings, requests, err
}

// timed runs a workload as often as it needs, and returns the median time. The requests are those
// of the first run.
func (w *workload) timed(ctx context.Context, t *task, count counting) ([]reading, counts, error) {
	var times []time.Duration
	var requests counts
	for i := range max(1, w.repeats) {
		made, err := t.session.during(count.ofFirst(i), func() error {
			start := time.Now()
			err := w.do(ctx, t)
			times = append(times, time.Since(start))
			return err
		})
		if err != nil {
			return nil, nil, err
		}
		if i == 0 {
			requests = made
		}
	}
	return []reading{{w.name, nanoseconds, float64(median(times))}}, requests, nil
}
