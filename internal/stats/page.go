package stats

import (
	"bytes"
	"fmt"
	"math"
	"math/bits"
	"strconv"
	"strings"
	"time"

	"github.com/fuse-overlay/fuse-overlay/internal/control"
)

// ContentType is the type of [Page] (Prometheus, "Exposition formats").
const ContentType = "text/plain; version=0.0.4; charset=utf-8"

// The ends of the buckets on the page are the powers of two nanoseconds from 1<<firstPower (1 µs)
// to 1<<lastPower (69 s). Each lies at the end of a bucket of the daemon. They are the same for all
// daemons, so histograms of several can be added.
const (
	firstPower = 10
	lastPower  = 36
)

// Page returns the numbers of a daemon in the text format of Prometheus. Each sample has the label
// mount. client_golang would make the same page with its ten dependencies, and no less code: its
// metrics count by themselves, and here a daemon has counted already.
func Page(s *control.Stats) []byte {
	p := &page{mount: s.Mount.Point}
	p.family("fuse_overlay_info", "gauge", "Version and mode of the mount; always 1.")
	p.sample("", 1, "version", s.Mount.Version, "mode", s.Mount.Mode, "device", s.Mount.Device)
	p.single("fuse_overlay_start_time_seconds", "gauge", "When the mount was made, in seconds since 1970.",
		float64(s.Mount.Started.UnixNano())/float64(time.Second))
	p.family("fuse_overlay_requests_total", "counter", "Requests of the kernel, by their names in linux/fuse.h.")
	for _, r := range s.Requests {
		p.sample("", float64(r.Count), "kind", r.Kind)
	}
	p.family("fuse_overlay_request_duration_seconds", "histogram", "How long requests took from their decoding to their reply.")
	for _, r := range s.Requests {
		if len(r.Latency) > 0 {
			p.histogram(r)
		}
	}
	for _, m := range []struct {
		name, kind, help string
		value            uint64
	}{
		{"fuse_overlay_copy_ups_total", "counter", "Objects that were copied up.", s.CopyUps.Objects},
		{"fuse_overlay_copy_up_bytes_total", "counter", "Bytes of data that copy-ups have copied.", s.CopyUps.Bytes},
		{"fuse_overlay_inodes", "gauge", "Inodes that the kernel knows.", s.Inodes.Known},
		{"fuse_overlay_inodes_made_total", "counter", "Inodes that the kernel has got.", s.Inodes.Made},
		{"fuse_overlay_handles_open", "gauge", "Files and directories of layers that are kept open.", s.Caches.HandlesOpen},
		{"fuse_overlay_handles_found_total", "counter", "Uses of one of these that was open.", s.Caches.HandlesFound},
		{"fuse_overlay_handles_opened_total", "counter", "Uses that had to open one.", s.Caches.HandlesOpened},
		{"fuse_overlay_directory_loads_total", "counter", "Directories that were read to know their names.", s.Caches.DirLoads},
		{"fuse_overlay_prefetched_reads_total", "counter", "READ requests that found their data in memory.", s.Caches.PrefetchedReads},
		{"fuse_overlay_daemon_open_descriptors", "gauge", "Descriptors that the daemon has open.", s.Process.OpenDescriptors},
		{"fuse_overlay_daemon_resident_bytes", "gauge", "Memory of the daemon.", s.Process.ResidentBytes},
		{"fuse_overlay_daemon_heap_bytes", "gauge", "Memory of objects on the heap of the daemon.", s.Process.HeapBytes},
		{"fuse_overlay_daemon_goroutines", "gauge", "Goroutines of the daemon.", s.Process.Goroutines},
	} {
		p.single(m.name, m.kind, m.help, float64(m.value))
	}
	return p.text.Bytes()
}

// page is a page that is being written.
type page struct {
	text  bytes.Buffer
	mount string // the label of each sample
	name  string // of the metric family that has begun
}

// family begins a metric family.
func (p *page) family(name, kind, help string) {
	p.name = name
	fmt.Fprintf(&p.text, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, kind)
}

// single writes a family with one sample.
func (p *page) single(name, kind, help string, value float64) {
	p.family(name, kind, help)
	p.sample("", value)
}

// escapeLabel escapes the value of a label.
var escapeLabel = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`)

// sample writes a sample of the family, with a suffix of its name. labels are names and values in
// turn.
func (p *page) sample(suffix string, value float64, labels ...string) {
	fmt.Fprintf(&p.text, "%s%s{mount=\"%s\"", p.name, suffix, escapeLabel.Replace(p.mount))
	for i := 0; i+1 < len(labels); i += 2 {
		fmt.Fprintf(&p.text, ",%s=\"%s\"", labels[i], escapeLabel.Replace(labels[i+1]))
	}
	fmt.Fprintf(&p.text, "} %s\n", number(value))
}

// number writes a value so that no digit is lost.
func number(v float64) string {
	if v == math.Trunc(v) && math.Abs(v) < 1<<53 {
		return strconv.FormatFloat(v, 'f', 0, 64)
	}
	return strconv.FormatFloat(v, 'g', -1, 64)
}

// histogram writes the samples of one kind of request.
func (p *page) histogram(r control.Request) {
	var within [lastPower + 1]uint64 // by powers of two
	for _, b := range r.Latency {
		if power := max(firstPower, bits.Len64(uint64(max(b.Below, 1)-1))); power <= lastPower {
			within[power] += b.Count
		}
	}
	var n uint64
	for power := firstPower; power <= lastPower; power++ {
		n += within[power]
		p.sample("_bucket", float64(n), "kind", r.Kind, "le", number(secondsOf(1<<power)))
	}
	all := total(r.Latency)
	p.sample("_bucket", float64(all), "kind", r.Kind, "le", "+Inf")
	p.sample("_sum", r.Seconds, "kind", r.Kind)
	p.sample("_count", float64(all), "kind", r.Kind)
}
