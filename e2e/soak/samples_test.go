package soak

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/fuse-overlay/fuse-overlay/e2e/harness"
)

// numbers is a part of the output of stats --json.
type numbers struct {
	Requests []struct {
		Kind    string
		Latency []struct {
			Below int64 `json:"below_ns"`
			Count uint64
		}
	}
	Inodes struct{ Known float64 }
	Caches struct {
		Open float64 `json:"handles_open"`
	}
	Process struct {
		Descriptors float64 `json:"open_descriptors"`
		Resident    float64 `json:"resident_bytes"`
		Heap        float64 `json:"heap_bytes"`
		Goroutines  float64
	}
}

// fastKinds are kinds of requests that the daemon mostly answers from memory. The machine's disk
// has no part in their latency.
var fastKinds = []string{"LOOKUP", "GETATTR"}

// maxHandles is how many files and directories of layers a daemon keeps open for later, if it may
// have as many descriptors as root has by default.
const maxHandles = 4096

// sampler reads the numbers of a daemon.
type sampler struct {
	o       *harness.Overlay
	figures []*figure
	earlier map[string]map[int64]uint64 // the buckets of the last sample, by the kind of request
	all     uint64                      // requests of the last sample
}

func newSampler(o *harness.Overlay) *sampler {
	s := &sampler{o: o, earlier: map[string]map[int64]uint64{}, figures: []*figure{
		{name: "descriptors but handles", share: 0.1, slack: 16},
		{name: "goroutines", share: 0.1, slack: 16},
		{name: "threads", share: 0.1, slack: 16},
		{name: "resident memory", unit: "MiB", share: 0.1, slack: 12},
		{name: "heap", unit: "MiB", share: 0.1, slack: 12},
		{name: "inodes of the kernel", share: 0.1, slack: 4000},
		{name: "handles that are kept open", bound: maxHandles},
	}}
	for _, kind := range fastKinds {
		s.figures = append(s.figures, &figure{name: "median of " + kind, unit: "µs", share: 1, slack: 100})
	}
	return s
}

// String shows all figures: the medians of the thirds, and the largest value.
func (s *sampler) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%-28s %10s %10s %10s %10s", "", "first", "middle", "last", "largest")
	for _, f := range s.figures {
		b.WriteString("\n" + f.String())
	}
	return b.String()
}

// sample adds one value to each figure.
func (s *sampler) sample() error {
	out, err := harness.Run(harness.Program, "stats", "--json", s.o.Point)
	if err != nil {
		return fmt.Errorf("stats: %w: %s", err, out)
	}
	var n numbers
	if err := json.Unmarshal([]byte(out), &n); err != nil {
		return fmt.Errorf("stats: %w: %s", err, out)
	}
	threads, err := threadsOf(s.o.PID)
	if err != nil {
		return err
	}
	p := n.Process
	values := []float64{
		p.Descriptors - n.Caches.Open, p.Goroutines, threads, p.Resident / harness.MiB, p.Heap / harness.MiB, n.Inodes.Known, n.Caches.Open,
	}
	for _, kind := range fastKinds {
		values = append(values, s.latency(&n, kind))
	}
	for i, v := range values {
		s.figures[i].values = append(s.figures[i].values, v)
	}
	s.all = 0
	for _, r := range n.Requests {
		for _, b := range r.Latency {
			s.all += b.Count
		}
	}
	return nil
}

// latency is the median of the requests of a kind since the last sample, in microseconds: the end
// of the bucket that holds it. If there was none, it is that of the sample before.
func (s *sampler) latency(n *numbers, kind string) float64 {
	now := map[int64]uint64{}
	type bucket struct {
		below int64
		count uint64
	}
	var since []bucket
	var total uint64
	for _, r := range n.Requests {
		if r.Kind != kind {
			continue
		}
		for _, b := range r.Latency {
			now[b.Below] = b.Count
			since = append(since, bucket{b.Below, b.Count - s.earlier[kind][b.Below]})
			total += b.Count - s.earlier[kind][b.Below]
		}
	}
	s.earlier[kind] = now
	var below uint64
	for _, b := range since {
		if below += b.count; total > 0 && 2*below >= total {
			return float64(b.below) / float64(time.Microsecond)
		}
	}
	for _, f := range s.figures {
		if f.name == "median of "+kind && len(f.values) > 0 {
			return f.values[len(f.values)-1]
		}
	}
	return 0
}

var threadsLine = regexp.MustCompile(`(?m)^Threads:\s+(\d+)$`)

// threadsOf is the number of threads of a process.
func threadsOf(pid int) (float64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	m := threadsLine.FindSubmatch(text)
	if m == nil {
		return 0, fmt.Errorf("process %d has no line with its threads", pid)
	}
	return strconv.ParseFloat(string(m[1]), 64)
}
