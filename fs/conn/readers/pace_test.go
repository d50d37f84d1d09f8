package readers

import (
	"slices"
	"testing"
	"time"
)

func TestPace(t *testing.T) {
	type told struct {
		tick int
		fast bool
	}
	slow := make([]uint64, slowTicks)
	almost := slow[1:]
	for _, tt := range []struct {
		name  string
		ticks []uint64
		want  []told
	}{
		{"nothing", slow, nil},
		{"now and then one", []uint64{1, 0, fastRequests - 1, 0, 1}, nil},
		{"fast", []uint64{0, fastRequests, 100, 100}, []told{{1, true}}},
		{"a pause", slices.Concat([]uint64{100}, almost, []uint64{100}, almost), []told{{0, true}}},
		{"an end", slices.Concat([]uint64{100}, slow, slow), []told{{0, true}, {slowTicks, false}}},
		{"again", slices.Concat([]uint64{100}, slow, []uint64{100}), []told{{0, true}, {slowTicks, false}, {slowTicks + 1, true}}},
	} {
		var got []told
		now := 0
		p := pace{tell: func(fast bool) { got = append(got, told{now, fast}) }}
		for now = range tt.ticks {
			p.tick(tt.ticks[now])
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("%s: told %v, want %v", tt.name, got, tt.want)
		}
	}
}

// In the beginning requests are expected for longer; once they have come, no longer than ever.
func TestPaceAtFirst(t *testing.T) {
	for _, tt := range []struct {
		busy, slow int
	}{{0, firstTicks}, {1, slowTicks}} {
		var told []bool
		p := pace{tell: func(fast bool) { told = append(told, fast) }}
		p.begin()
		for range tt.busy {
			p.tick(fastRequests)
		}
		for tick := range tt.slow {
			if !slices.Equal(told, []bool{true}) {
				t.Errorf("%d busy ticks, %d slow ones: told %v", tt.busy, tick, told)
			}
			p.tick(0)
		}
		if !slices.Equal(told, []bool{true, false}) {
			t.Errorf("%d busy ticks, %d slow ones: told %v", tt.busy, tt.slow, told)
		}
	}
}

// Whoever is told sees requests come fast and no longer, and hears of the end of a connection that was busy to its last moment.
func TestPoolTellsThePace(t *testing.T) {
	answers, told := make(chan byte, 1), make(chan byte, 100)
	f, p, _ := start(t, func(_ *Pool, b byte) { answers <- b }, func(p *Pool) {
		p.Tell(func(fast bool) (awake bool) {
			if fast {
				told <- 1
			} else {
				told <- 0
			}
			return fast
		})
	})
	busy := func() {
		for len(told) == 0 {
			f.send(7)
			within(t, "answer", answers)
		}
		if within(t, "that requests are fast", told) != 1 {
			t.Fatal("fast requests: told that they are slow")
		}
	}
	patient := func(want time.Duration) {
		t.Helper()
		for range 1000 {
			if p.patience() == want {
				return
			}
			time.Sleep(time.Millisecond)
		}
		t.Errorf("readers look for %v, want %v", p.patience(), want)
	}
	if within(t, "the beginning", told) != 1 {
		t.Fatal("the beginning: told that requests are slow")
	}
	patient(shortPatience)
	if (&Pool{noSpin: true}).patience() != 0 {
		t.Error("a reader spins although that is turned off")
	}
	if within(t, "that none come", told) != 0 {
		t.Fatal("no requests: told that they are fast")
	}
	patient(patience)
	busy()
	patient(shortPatience)
	if within(t, "that requests are slow", told) != 0 {
		t.Fatal("no requests: told again that they are fast")
	}
	patient(patience)
	busy()
	f.finish()
	if within(t, "the end", told) != 0 {
		t.Fatal("the end: told that requests are fast")
	}
}
