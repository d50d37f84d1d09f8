package conn

import (
	"math"
	"math/bits"
	"sync/atomic"
	"time"

	"github.com/fuse-overlay/fuse-overlay/fs/conn/wire"
)

// The buckets of a latency histogram. Each power of two nanoseconds is divided into
// 1<<subBits buckets of one width, so that a bucket is at most a quarter as wide as its values are
// large. The first bucket has everything that is shorter than 1<<minExponent ns (1 µs), the last
// one everything from 1<<maxExponent ns (69 s).
const (
	subBits     = 2
	minExponent = 10
	maxExponent = 36
	buckets     = (maxExponent-minExponent)<<subBits + 2
)

// bucketOf returns the bucket of a latency.
func bucketOf(d time.Duration) int {
	if d < 1<<minExponent {
		return 0
	}
	exponent := bits.Len64(uint64(d)) - 1
	if exponent >= maxExponent {
		return buckets - 1
	}
	sub := int(d>>(exponent-subBits)) & (1<<subBits - 1)
	return 1 + (exponent-minExponent)<<subBits + sub
}

// bucketEnd returns the shortest latency that is too long for a bucket.
func bucketEnd(bucket int) time.Duration {
	switch bucket {
	case 0:
		return 1 << minExponent
	case buckets - 1:
		return math.MaxInt64
	}
	exponent, sub := minExponent+(bucket-1)>>subBits, (bucket-1)&(1<<subBits-1)
	return time.Duration(1<<subBits+sub+1) << (exponent - subBits)
}

// latencies are the histograms of all kinds of requests. They take no lock and allocate nothing.
type latencies struct {
	sum [wire.Opcodes]atomic.Int64 // in nanoseconds
	n   [wire.Opcodes][buckets]atomic.Uint64
}

// add counts one request that took d from its decoding to its reply.
func (l *latencies) add(op wire.Opcode, d time.Duration) {
	op = countedAs(op)
	if op < wire.Opcodes {
		l.sum[op].Add(int64(d))
		l.n[op][bucketOf(d)].Add(1)
	}
}

// Bucket is how many requests took less than End, and not less than the End of the bucket before.
type Bucket struct {
	End   time.Duration
	Count uint64
}

// snapshot returns the buckets of a kind that are not empty, the shortest first, and the sum of all
// latencies.
func (l *latencies) snapshot(op wire.Opcode) (list []Bucket, sum time.Duration) {
	for i := range l.n[op] {
		if n := l.n[op][i].Load(); n > 0 {
			list = append(list, Bucket{bucketEnd(i), n})
		}
	}
	return list, time.Duration(l.sum[op].Load())
}

// clockStart is the beginning of the time that now returns.
var clockStart = time.Now()

// now returns a time for differences. time.Now would read a second clock, that of the day.
func now() time.Duration { return time.Since(clockStart) }
