package conn

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/fuse-overlay/fuse-overlay/fs/conn/wire"
)

// Each latency lies in the bucket whose end is the first above it, and no bucket is wider than a
// quarter of its values.
func TestBuckets(t *testing.T) {
	latencies := []time.Duration{-1, 0, 1, 1<<minExponent - 1, 1 << minExponent, 1<<maxExponent - 1, 1 << maxExponent, math.MaxInt64 - 1}
	for range 10_000 {
		latencies = append(latencies, time.Duration(rand.Int64N(1<<rand.IntN(62)+1)))
	}
	for _, d := range latencies {
		b := bucketOf(d)
		if b < 0 || b >= buckets {
			t.Fatalf("%d ns is in bucket %d of %d", d, b, buckets)
		}
		if end := bucketEnd(b); d >= end {
			t.Errorf("%d ns is in bucket %d, which ends at %d", d, b, end)
		}
		if b == 0 {
			continue
		}
		begin := bucketEnd(b - 1)
		if d < begin {
			t.Errorf("%d ns is in bucket %d, which begins at %d", d, b, begin)
		}
		if width := bucketEnd(b) - begin; b < buckets-1 && width > begin/4 {
			t.Errorf("bucket %d is %d ns wide and begins at %d", b, width, begin)
		}
	}
	if buckets-1 != bucketOf(math.MaxInt64) || bucketEnd(buckets-1) != math.MaxInt64 {
		t.Error("the last bucket has an end")
	}
}

// slowFile is a oneFile whose GETATTR takes a while.
type slowFile struct {
	*oneFile
	wait time.Duration
}

func (f *slowFile) GetAttr(<-chan struct{}, *fuse.GetAttrIn, *fuse.AttrOut) fuse.Status {
	time.Sleep(f.wait)
	return fuse.OK
}

// replies counts replies.
type replies struct{ n int }

func (r *replies) Write([]byte) error { r.n++; return nil }

// serve has a worker answer one request.
func serve(w *Worker, in []byte) { w.Serve(copy(w.Buffer(), in)) }

func TestRequestsHaveLatencies(t *testing.T) {
	const wait = 20 * time.Millisecond
	c := newConn(t, Config{})
	device := &replies{}
	w := c.NewWorker(WorkerConfig{Handler: &slowFile{newOneFile("text"), wait}, Device: device, MaxWrite: 4096})
	getattr := fuse.GetAttrIn{InHeader: fuse.InHeader{Opcode: uint32(wire.OpGetattr)}}
	forget := fuse.ForgetIn{InHeader: fuse.InHeader{Opcode: uint32(wire.OpForget)}, Nlookup: 1}
	serve(w, wire.Bytes(&getattr))
	serve(w, wire.Bytes(&getattr))
	serve(w, wire.Bytes(&forget))

	byKind := map[string]RequestStats{}
	for _, r := range c.Requests() {
		byKind[r.Kind] = r
	}
	if len(byKind) != 2 || device.n != 2 {
		t.Fatalf("%d kinds of requests and %d replies, want 2 and 2: %v", len(byKind), device.n, byKind)
	}
	got := byKind["GETATTR"]
	var answered uint64
	for _, b := range got.Latency {
		answered += b.Count
		if b.End < wait {
			t.Errorf("%d requests that wait %v took less than %v", b.Count, wait, b.End)
		}
	}
	if got.Count != 2 || answered != 2 || got.Total < 2*wait || got.Total > time.Minute {
		t.Errorf("two GETATTRs of %v: %d served, %d answered, in %v", wait, got.Count, answered, got.Total)
	}
	if f := byKind["FORGET"]; f.Count != 1 || len(f.Latency) != 0 || f.Total != 0 {
		t.Errorf("FORGET: %+v", f)
	}
}

// RENAME2 counts as RENAME, with its latency.
func TestLatencyOfRename2(t *testing.T) {
	var l latencies
	l.add(wire.OpRename2, time.Millisecond)
	l.add(wire.OpRename, time.Millisecond)
	list, sum := l.snapshot(wire.OpRename)
	if len(list) != 1 || list[0].Count != 2 || sum != 2*time.Millisecond {
		t.Errorf("%v, %v", list, sum)
	}
	l.add(wire.Opcodes+7, time.Hour) // a kind that the daemon does not know
}

// What the histogram costs a request: two readings of the clock and two additions.
func BenchmarkLatency(b *testing.B) {
	var l latencies
	b.ReportAllocs()
	for b.Loop() {
		start := now()
		l.add(wire.OpLookup, now()-start)
	}
}

// The same while another thread counts requests of the same kind.
func BenchmarkLatencyShared(b *testing.B) {
	var l latencies
	b.SetParallelism(1)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			start := now()
			l.add(wire.OpLookup, now()-start)
		}
	})
}
