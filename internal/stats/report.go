package stats

import (
	"math"
	"time"

	"github.com/fuse-overlay/fuse-overlay/internal/control"
)

// Report is what a daemon has done since it has mounted, with the rates and latencies of an
// interval.
type Report struct {
	control.Stats
	// Interval is how long the interval is, in seconds.
	Interval float64 `json:"interval_seconds"`
	// Requests replace those of Stats.
	Requests []Request `json:"requests"`
}

// Request is one kind of request. What is embedded is since the mount.
type Request struct {
	control.Request
	// Pending is how many are not answered yet. FORGET is never answered, and not pending.
	Pending uint64 `json:"pending"`
	// Rate is how many came in the interval, per second.
	Rate float64 `json:"per_second"`
	// The latencies of the interval in seconds: half, 90 % and 99 % of the requests, and all of them,
	// took less. They are too large by a quarter at most. 0: no request was answered. Those of 69 s
	// and more are the largest number.
	P50 float64 `json:"p50_seconds"`
	P90 float64 `json:"p90_seconds"`
	P99 float64 `json:"p99_seconds"`
	Max float64 `json:"max_seconds"`
}

// forget is the kind of request that has no reply.
const forget = "FORGET"

// NewReport returns the report of an interval that ends with now. It begins with before, or with
// the mount if before is nil or of another daemon.
func NewReport(now, before *control.Stats) Report {
	r := Report{Stats: *now, Interval: now.Uptime}
	earlier := map[string]control.Request{}
	if before != nil && before.Mount.Started.Equal(now.Mount.Started) && before.Mount.PID == now.Mount.PID {
		r.Interval -= before.Uptime
		for _, old := range before.Requests {
			earlier[old.Kind] = old
		}
	}
	for _, request := range now.Requests {
		r.Requests = append(r.Requests, newRequest(request, earlier[request.Kind], r.Interval))
	}
	return r
}

func newRequest(now, before control.Request, interval float64) Request {
	r := Request{Request: now}
	if answered := total(now.Latency); now.Kind != forget && answered < now.Count {
		r.Pending = now.Count - answered
	}
	if interval > 0 {
		r.Rate = float64(minus(now.Count, before.Count)) / interval
	}
	within := difference(now.Latency, before.Latency)
	r.P50, r.P90, r.P99, r.Max = quantile(within, 0.5), quantile(within, 0.9), quantile(within, 0.99), quantile(within, 1)
	return r
}

// minus subtracts counters. The daemon is not trusted to count upwards.
func minus(now, before uint64) uint64 { return now - min(now, before) }

func total(buckets []control.Bucket) (n uint64) {
	for _, b := range buckets {
		n += b.Count
	}
	return n
}

// difference returns what has come into the buckets since before.
func difference(now, before []control.Bucket) (list []control.Bucket) {
	earlier := map[int64]uint64{}
	for _, b := range before {
		earlier[b.Below] = b.Count
	}
	for _, b := range now {
		if n := minus(b.Count, earlier[b.Below]); n > 0 {
			list = append(list, control.Bucket{Below: b.Below, Count: n})
		}
	}
	return list
}

// quantile returns the end of the first bucket with which the share q of all requests is reached,
// in seconds; 0 if there are none.
func quantile(buckets []control.Bucket, q float64) float64 {
	rank := uint64(math.Ceil(q * float64(total(buckets))))
	var n uint64
	for _, b := range buckets {
		if n += b.Count; n >= rank {
			return secondsOf(b.Below)
		}
	}
	return 0
}

func secondsOf(nanoseconds int64) float64 { return float64(nanoseconds) / float64(time.Second) }
