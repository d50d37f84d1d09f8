package readers

import (
	"slices"
	"testing"
	"time"
)

func TestPace(t *testing.T) {
	type change struct {
		tick int
		fast bool
	}
	slow := make([]uint64, slowTicks)
	almost := slow[1:]
	for _, tt := range []struct {
		name  string
		ticks []uint64
		want  []change
	}{
		{"nothing", slow, nil},
		{"now and then one", []uint64{1, 0, fastRequests - 1, 0, 1}, nil},
		{"fast", []uint64{0, fastRequests, 100, 100}, []change{{1, true}}},
		{"a pause", slices.Concat([]uint64{100}, almost, []uint64{100}, almost), []change{{0, true}}},
		{"an end", slices.Concat([]uint64{100}, slow, slow), []change{{0, true}, {slowTicks, false}}},
		{"again", slices.Concat([]uint64{100}, slow, []uint64{100}), []change{{0, true}, {slowTicks, false}, {slowTicks + 1, true}}},
	} {
		var got []change
		now := 0
		p := pace{changed: func(fast bool) { got = append(got, change{now, fast}) }}
		for now = range tt.ticks {
			p.tick(tt.ticks[now])
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("%s: changes %v, want %v", tt.name, got, tt.want)
		}
	}
}

// At the start the pool expects requests for longer. After the first ones the time is the usual
// one.
func TestPaceAtFirst(t *testing.T) {
	for _, tt := range []struct {
		busy, slow int
	}{{0, firstTicks}, {1, slowTicks}} {
		var changes []bool
		p := pace{changed: func(fast bool) { changes = append(changes, fast) }}
		p.begin()
		for range tt.busy {
			p.tick(fastRequests)
		}
		for tick := range tt.slow {
			if !slices.Equal(changes, []bool{true}) {
				t.Errorf("%d busy ticks, %d slow ones: changes %v", tt.busy, tick, changes)
			}
			p.tick(0)
		}
		if !slices.Equal(changes, []bool{true, false}) {
			t.Errorf("%d busy ticks, %d slow ones: changes %v", tt.busy, tt.slow, changes)
		}
	}
}

// OnPaceChange is called when requests come fast and no longer, and at the end of a busy
// connection.
func TestOnPaceChange(t *testing.T) {
	answers, paces := make(chan byte, 1), make(chan byte, 100)
	f, p, _ := start(t, func(_ *Pool, b byte) { answers <- b }, func(p *Pool) {
		p.OnPaceChange(func(fast bool) (awake bool) {
			if fast {
				paces <- 1
			} else {
				paces <- 0
			}
			return fast
		})
	})
	busy := func() {
		for len(paces) == 0 {
			f.send(7)
			within(t, "answer", answers)
		}
		if within(t, "that requests are fast", paces) != 1 {
			t.Fatal("fast requests count as slow")
		}
	}
	spins := func(want time.Duration) {
		t.Helper()
		for range 1000 {
			if p.spinTime() == want {
				return
			}
			time.Sleep(time.Millisecond)
		}
		t.Errorf("readers spin for %v, want %v", p.spinTime(), want)
	}
	if within(t, "the beginning", paces) != 1 {
		t.Fatal("at the start requests count as slow")
	}
	spins(shortSpinTime)
	if (&Pool{noSpin: true}).spinTime() != 0 {
		t.Error("a reader spins although that is turned off")
	}
	if within(t, "that none come", paces) != 0 {
		t.Fatal("no requests count as fast")
	}
	spins(spinTime)
	busy()
	spins(shortSpinTime)
	if within(t, "that requests are slow", paces) != 0 {
		t.Fatal("no requests count as fast again")
	}
	spins(spinTime)
	busy()
	f.finish()
	if within(t, "the end", paces) != 0 {
		t.Fatal("at the end requests count as fast")
	}
}
