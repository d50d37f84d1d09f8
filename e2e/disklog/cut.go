package disklog

import (
	"math/rand/v2"
	"slices"
)

// Cut is a moment at which the power goes.
type Cut struct {
	// Entries is how many entries of the log the device has got before.
	Entries int
	// Seed selects the writes since the last flush that are on the medium. 0: all are.
	Seed uint64
}

// Choose chooses n cuts of a log, in its order: one directly after each flush, or after some of
// them if there are more than n/2, and the others at random.
func Choose(log []Entry, n int, r *rand.Rand) []Cut {
	var cuts []Cut
	for i, e := range log {
		if e.Kind == Flush {
			cuts = append(cuts, Cut{Entries: i + 1})
		}
	}
	r.Shuffle(len(cuts), func(i, j int) { cuts[i], cuts[j] = cuts[j], cuts[i] })
	cuts = cuts[:min(len(cuts), n/2)]
	for len(cuts) < n {
		cuts = append(cuts, Cut{Entries: 1 + r.IntN(len(log)), Seed: 1 + r.Uint64N(1<<32)})
	}
	slices.SortStableFunc(cuts, func(a, b Cut) int { return a.Entries - b.Entries })
	return cuts
}

// Marks returns the texts of the marks before a cut.
func (c Cut) Marks(log []Entry) (texts []string) {
	for _, e := range log[:c.Entries] {
		if e.Kind == Mark {
			texts = append(texts, string(e.Data))
		}
	}
	return texts
}

// chooser returns a function that decides for each block of each write since the last flush whether
// it is on the medium. Half of the cuts tear writes apart.
func (c Cut) chooser() func(entry int) bool {
	if c.Seed == 0 {
		return func(int) bool { return true }
	}
	r := rand.New(rand.NewPCG(c.Seed, uint64(c.Entries)))
	quarters := r.IntN(5) // how many of four pieces are there, on average
	tears := r.IntN(2) == 0
	last, there := -1, false
	return func(entry int) bool {
		if tears || entry != last {
			last, there = entry, r.IntN(4) < quarters
		}
		return there
	}
}
