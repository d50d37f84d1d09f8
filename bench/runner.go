package main

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// A runner does workloads on candidates.
type runner struct {
	dir        string
	layouts    *layouts
	candidates []candidate
	rounds     int
	requests   bool
	progress   *progress
	// leftOut tells what could not be measured.
	leftOut []omission
	// tried remembers which mount options a candidate takes.
	tried map[string]error
}

// patience is how long one session may take: a daemon that hangs must not end the whole run.
const patience = 20 * time.Minute

// measure does every workload on every candidate in every round. The candidates alternate within a round, and each round
// begins with another of them. The error tells that something went wrong; the results are those that did not.
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

// workload measures one workload, and says how many candidates failed in it.
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
			readings, requests, err := r.once(ctx, w, l, c, round == 0)
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

// prepare makes the layers of a workload and finds the candidates that take part. Who does not is left out, and said.
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

// accepts tries, once, whether a candidate takes a workload's mount options.
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

// leaveOut records, and says at once, what is not measured: a workload, a candidate, or one on the other.
func (r *runner) leaveOut(workload, candidate string, why error) {
	o := omission{Workload: workload, Candidate: candidate, Why: why.Error()}
	r.leftOut = append(r.leftOut, o)
	r.progress.say("left out: %s", o)
}

// once does a workload on a candidate, in as many sessions as it wants, and takes the medians. Requests are counted in
// the first session if count is set.
func (r *runner) once(ctx context.Context, w workload, l *layout, c candidate, count bool) ([]reading, counts, error) {
	var medians []reading
	values := map[string][]float64{}
	var requests counts
	for i := range max(1, w.sessions) {
		readings, counted, err := r.session(ctx, w, l, c, count && i == 0)
		if err != nil {
			return nil, nil, err
		}
		if i == 0 {
			medians, requests = readings, counted
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

// session does a workload in a session of its own.
func (r *runner) session(ctx context.Context, w workload, l *layout, c candidate, count bool) (_ []reading, _ counts, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	count = count && r.requests && c.kind == ours && !w.detached
	s, err := newSession(l, c, w.options[c.kind])
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, s.detach()) }()
	s.writes = w.writes
	if count {
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
	// What others left to be written back is not this one's to pay for.
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

// timed does a workload as often as it wants, and takes the median time and, of the first time, the requests.
func (w *workload) timed(ctx context.Context, t *task, count bool) ([]reading, counts, error) {
	var times []time.Duration
	var requests counts
	for i := range max(1, w.repeats) {
		counted, err := t.session.during(count && i == 0, func() error {
			start := time.Now()
			err := w.do(ctx, t)
			times = append(times, time.Since(start))
			return err
		})
		if err != nil {
			return nil, nil, err
		}
		if i == 0 {
			requests = counted
		}
	}
	return []reading{{w.name, nanoseconds, float64(median(times))}}, requests, nil
}
