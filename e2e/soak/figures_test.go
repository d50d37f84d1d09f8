package soak

import (
	"fmt"
	"math"
	"slices"
	"testing"
)

// figure is a number that must not grow.
type figure struct {
	name string
	unit string
	// share and slack are by how much the median of the last third may exceed the larger of those of
	// the first and the middle third: slack, and this share of the latter. A load with long rounds, as
	// a build that now and then begins anew, makes the middle third alone small by chance.
	share, slack float64
	// bound is the most that a cache may hold, for a figure that may grow until then; 0 for any other.
	bound  float64
	values []float64 // one for each sample
}

// thirds are the medians of the first, the middle and the last third of the samples.
func (f *figure) thirds() (medians [3]float64) {
	n := len(f.values) / 3
	for i := range medians {
		medians[i] = median(f.values[i*n : (i+1)*n])
	}
	return medians
}

// growth describes by how much the last third exceeds the middle third, if that is too much.
func (f *figure) growth() string {
	if most := slices.Max(f.values); f.bound > 0 {
		if most > f.bound {
			return fmt.Sprintf("%s: up to %.5g %s; there may be %.5g", f.name, most, f.unit, f.bound)
		}
		return ""
	}
	m := f.thirds()
	if limit := max(m[0], m[1])*(1+f.share) + f.slack; m[2] > limit {
		return fmt.Sprintf("%s: %.5g %s in the last third of the run, %.5g and %.5g in the two before; more than %.5g is growth",
			f.name, m[2], f.unit, m[0], m[1], limit)
	}
	return ""
}

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	if len(sorted) == 0 {
		return math.NaN()
	}
	return sorted[len(sorted)/2]
}

func (f *figure) String() string {
	if len(f.values) == 0 {
		return f.name + ": no sample"
	}
	m := f.thirds()
	return fmt.Sprintf("%-28s %10.5g %10.5g %10.5g %10.5g  %s", f.name, m[0], m[1], m[2], slices.Max(f.values), f.unit)
}

// growths describes all figures that have grown.
func growths(figures []*figure) (list []string) {
	for _, f := range figures {
		if g := f.growth(); g != "" {
			list = append(list, g)
		}
	}
	return list
}

// The rule finds a figure that grows, and no figure that goes up and down.
func TestGrowth(t *testing.T) {
	for _, c := range []struct {
		what  string
		value func(i int) float64
		want  bool
	}{
		{"constant", func(int) float64 { return 100 }, false},
		{"up and down", func(i int) float64 { return 100 + float64(i%7)*50 }, false},
		{"a start that takes a third", func(i int) float64 { return math.Min(float64(i), 33) * 20 }, false},
		{"less in the middle", func(i int) float64 { return 100 + math.Abs(float64(i)-49)*10 }, false},
		{"less and less", func(i int) float64 { return 1000 - float64(i) }, false},
		{"one outlier", func(i int) float64 { return map[bool]float64{true: 1e9, false: 100}[i == 90] }, false},
		{"one more with each sample", func(i int) float64 { return 100 + float64(i) }, true},
		{"growth below a saw", func(i int) float64 { return 100 + float64(i%7)*5 + float64(i) }, true},
	} {
		f := figure{name: c.what, share: 0.05, slack: 10}
		for i := range 99 {
			f.values = append(f.values, c.value(i))
		}
		if got := f.growth(); (got != "") != c.want {
			t.Errorf("%s: %q, want growth %v", c.what, got, c.want)
		}
	}
	for bound, want := range map[float64]bool{99: false, 98: true} {
		f := figure{name: "cache", bound: bound, values: []float64{1, 50, 99}}
		if got := f.growth(); (got != "") != want {
			t.Errorf("up to 99, and %.0f is the bound: %q, want growth %v", bound, got, want)
		}
	}
}
