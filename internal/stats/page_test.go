package stats

import (
	"math"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/fuse-overlay/fuse-overlay/internal/control"
)

// comment and sample are the lines of the text format of Prometheus, version 0.0.4.
var (
	comment = regexp.MustCompile(`^# (HELP|TYPE) ([a-z_]+) (\S.*)$`)
	sample  = regexp.MustCompile(`^([a-z_]+)\{([a-z_]+="(?:[^"\\\n]|\\[\\"n])*"(?:,[a-z_]+="(?:[^"\\\n]|\\[\\"n])*")*)\} (\S+)$`)
)

// readPage checks the lines of a page and returns its samples.
func readPage(t *testing.T, page string) map[string]float64 {
	t.Helper()
	if !strings.HasSuffix(page, "\n") {
		t.Error("the last line has no end")
	}
	samples, kinds, family := map[string]float64{}, map[string]string{}, ""
	for line := range strings.Lines(page) {
		line = strings.TrimSuffix(line, "\n")
		if m := comment.FindStringSubmatch(line); m != nil {
			if m[1] == "TYPE" {
				family = m[2]
				if kinds[family] != "" {
					t.Errorf("%s has two types", family)
				}
				kinds[family] = m[3]
			}
			continue
		}
		m := sample.FindStringSubmatch(line)
		if m == nil {
			t.Errorf("not a line of the format: %q", line)
			continue
		}
		suffix, ok := strings.CutPrefix(m[1], family)
		histogram := kinds[family] == "histogram"
		if !ok || histogram != (suffix == "_bucket" || suffix == "_sum" || suffix == "_count") || !histogram && suffix != "" {
			t.Errorf("%s in the family %s", m[1], family)
		}
		if counts := strings.HasSuffix(family, "_total"); counts != (kinds[family] == "counter") {
			t.Errorf("%s is a %s", family, kinds[family])
		}
		value, err := strconv.ParseFloat(m[3], 64)
		if err != nil {
			t.Errorf("%q: %v", line, err)
		}
		name := m[1] + "{" + m[2] + "}"
		if _, twice := samples[name]; twice {
			t.Errorf("%s comes twice", name)
		}
		samples[name] = value
	}
	return samples
}

func TestPage(t *testing.T) {
	s := &control.Stats{
		Mount: control.Mount{Point: "/a\"b\\c\nd", Version: "1", Mode: "read-write", Device: "0:7", Started: time.Unix(1700000000, 500000000)},
		Requests: []control.Request{
			{Kind: "READ", Count: 12, Seconds: 0.125, Latency: []control.Bucket{
				{Below: 1024, Count: 1}, {Below: 1280, Count: 2}, {Below: 2048, Count: 3}, {Below: 1 << 36, Count: 4}, {Below: math.MaxInt64, Count: 1}}},
			{Kind: "FORGET", Count: 1<<53 + 2},
		},
		CopyUps: control.CopyUps{Objects: 3, Bytes: 1 << 40}, Inodes: control.Inodes{Known: 4, Made: 5},
		Caches:  control.Caches{HandlesOpen: 6, HandlesFound: 7, HandlesOpened: 8, DirLoads: 9, PrefetchedReads: 10},
		Process: control.Process{OpenDescriptors: 11, ResidentBytes: 12, HeapBytes: 13, Goroutines: 14},
	}
	got := readPage(t, string(Page(s)))
	const mount = `mount="/a\"b\\c\nd"`
	want := map[string]float64{
		`info{MOUNT,version="1",mode="read-write",device="0:7"}`:               1,
		`start_time_seconds{MOUNT}`:                                            1700000000.5,
		`requests_total{MOUNT,kind="READ"}`:                                    12,
		`requests_total{MOUNT,kind="FORGET"}`:                                  1<<53 + 2,
		`request_duration_seconds_bucket{MOUNT,kind="READ",le="1.024e-06"}`:    1,
		`request_duration_seconds_bucket{MOUNT,kind="READ",le="2.048e-06"}`:    6,
		`request_duration_seconds_bucket{MOUNT,kind="READ",le="4.096e-06"}`:    6,
		`request_duration_seconds_bucket{MOUNT,kind="READ",le="34.359738368"}`: 6,
		`request_duration_seconds_bucket{MOUNT,kind="READ",le="68.719476736"}`: 10,
		`request_duration_seconds_bucket{MOUNT,kind="READ",le="+Inf"}`:         11,
		`request_duration_seconds_count{MOUNT,kind="READ"}`:                    11,
		`request_duration_seconds_sum{MOUNT,kind="READ"}`:                      0.125,
		`copy_ups_total{MOUNT}`:                                                3,
		`copy_up_bytes_total{MOUNT}`:                                           1 << 40,
		`inodes{MOUNT}`:                                                        4,
		`inodes_made_total{MOUNT}`:                                             5,
		`handles_open{MOUNT}`:                                                  6,
		`handles_found_total{MOUNT}`:                                           7,
		`handles_opened_total{MOUNT}`:                                          8,
		`directory_loads_total{MOUNT}`:                                         9,
		`prefetched_reads_total{MOUNT}`:                                        10,
		`daemon_open_descriptors{MOUNT}`:                                       11,
		`daemon_resident_bytes{MOUNT}`:                                         12,
		`daemon_heap_bytes{MOUNT}`:                                             13,
		`daemon_goroutines{MOUNT}`:                                             14,
	}
	for name, value := range want {
		name = "fuse_overlay_" + strings.Replace(name, "MOUNT", mount, 1)
		if v, ok := got[name]; !ok || v != value {
			t.Errorf("%s is %v (%v), want %v", name, v, ok, value)
		}
	}
	if all := len(want) + lastPower - firstPower + 1 - 5; len(got) != all {
		t.Errorf("%d samples, want %d", len(got), all)
	}
}

// A hostile daemon can make odd numbers, and no odd page.
func TestPageOfOddNumbers(t *testing.T) {
	s := &control.Stats{
		Uptime: -1,
		Requests: []control.Request{{Kind: "x\"} 1\n", Count: math.MaxUint64, Seconds: -1e300,
			Latency: []control.Bucket{{Below: math.MinInt64, Count: math.MaxUint64}, {Below: 0, Count: 1}, {Below: 0, Count: 5}}}},
	}
	readPage(t, string(Page(s)))
	NewReport(s, s)
}
