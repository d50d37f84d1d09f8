package stats

import (
	"encoding/json"
	"math"
	"testing"
	"time"

	"github.com/fuse-overlay/fuse-overlay/internal/control"
)

// at returns the numbers of a daemon some seconds after the mount.
func at(uptime float64, requests ...control.Request) *control.Stats {
	return &control.Stats{
		Mount:  control.Mount{PID: 7, Started: time.Unix(1000, 5), Point: "/mnt"},
		Uptime: uptime, Requests: requests,
	}
}

func TestQuantiles(t *testing.T) {
	buckets := []control.Bucket{{Below: 1000, Count: 50}, {Below: 2000, Count: 40}, {Below: 4000, Count: 9}, {Below: math.MaxInt64, Count: 1}}
	for _, tt := range []struct{ q, want float64 }{
		{0.5, 1e-6}, {0.501, 2e-6}, {0.9, 2e-6}, {0.99, 4e-6}, {1, float64(math.MaxInt64) / 1e9},
	} {
		if got := quantile(buckets, tt.q); got != tt.want {
			t.Errorf("%v: %v, want %v", tt.q, got, tt.want)
		}
	}
	if got := quantile(nil, 0.5); got != 0 {
		t.Errorf("of nothing: %v", got)
	}
	if got := quantile(buckets[:1], 0); got != 1e-6 {
		t.Errorf("of the share 0: %v", got)
	}
}

// The first report is of the time since the mount.
func TestReportSinceTheMount(t *testing.T) {
	r := NewReport(at(10, control.Request{Kind: "READ", Count: 20, Latency: []control.Bucket{{Below: 1000, Count: 15}}},
		control.Request{Kind: "FORGET", Count: 5}), nil)
	if r.Interval != 10 || len(r.Requests) != 2 {
		t.Fatalf("%+v", r)
	}
	if q := r.Requests[0]; q.Rate != 2 || q.Pending != 5 || q.P50 != 1e-6 || q.Max != 1e-6 {
		t.Errorf("READ: %+v", q)
	}
	if q := r.Requests[1]; q.Rate != 0.5 || q.Pending != 0 || q.P50 != 0 {
		t.Errorf("FORGET: %+v", q)
	}
}

// Later ones are of the interval, but counts are those since the mount.
func TestReportOfAnInterval(t *testing.T) {
	before := at(10, control.Request{Kind: "READ", Count: 20, Latency: []control.Bucket{{Below: 1000, Count: 20}}})
	now := at(12, control.Request{Kind: "READ", Count: 30, Latency: []control.Bucket{{Below: 1000, Count: 20}, {Below: 8000, Count: 10}}},
		control.Request{Kind: "WRITE", Count: 4, Latency: []control.Bucket{{Below: 2000, Count: 4}}})
	r := NewReport(now, before)
	if q := r.Requests[0]; r.Interval != 2 || q.Count != 30 || q.Rate != 5 || q.P50 != 8e-6 {
		t.Errorf("READ: %+v", q)
	}
	if q := r.Requests[1]; q.Rate != 2 || q.P50 != 2e-6 {
		t.Errorf("WRITE, which is new: %+v", q)
	}
	quiet := NewReport(now, now)
	if q := quiet.Requests[0]; quiet.Interval != 0 || q.Rate != 0 || q.P50 != 0 || q.Count != 30 {
		t.Errorf("an interval of nothing: %+v", q)
	}
}

// A daemon that has taken the place of another, and one whose counters fall, give no nonsense.
func TestReportOfAnotherDaemon(t *testing.T) {
	before := at(10, control.Request{Kind: "READ", Count: 20, Latency: []control.Bucket{{Below: 1000, Count: 20}}})
	other := at(2, control.Request{Kind: "READ", Count: 4, Latency: []control.Bucket{{Below: 1000, Count: 4}}})
	other.Mount.PID = 8
	if r := NewReport(other, before); r.Interval != 2 || r.Requests[0].Rate != 2 || r.Requests[0].P50 != 1e-6 {
		t.Errorf("%+v", r)
	}
	other.Mount.PID = 7
	if q := NewReport(other, before).Requests[0]; q.Rate != 0 || q.P50 != 0 {
		t.Errorf("counters that fall: %+v", q)
	}
}

// The JSON has one list of requests, with what a client adds.
func TestReportAsJSON(t *testing.T) {
	text, err := json.Marshal(NewReport(at(10, control.Request{Kind: "READ", Count: 20}), nil))
	if err != nil {
		t.Fatal(err)
	}
	var r struct {
		Mount    map[string]any
		Requests []map[string]any
	}
	if err := json.Unmarshal(text, &r); err != nil || r.Mount["mount_point"] != "/mnt" || len(r.Requests) != 1 {
		t.Fatalf("%s: %+v, %v", text, r, err)
	}
	for name, want := range map[string]any{"kind": "READ", "count": 20.0, "pending": 20.0, "per_second": 2.0, "p99_seconds": 0.0} {
		if r.Requests[0][name] != want {
			t.Errorf("%s is %v, want %v", name, r.Requests[0][name], want)
		}
	}
}
