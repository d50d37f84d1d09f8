package stack

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// after returns up to n entries that follow an offset, and the offset to go on from, as one READDIR
// does.
func (m *merged) after(offset uint64, n int) (names []string, next uint64) {
	place, end := uint64(0), uint64(0)
	if offset == 0 {
		end = m.Begin()
	} else {
		place, end = m.Resume(offset)
	}
	m.List(place, end, func(e *Listed) bool {
		if len(names) == n {
			return false
		}
		names, next = append(names, e.Name), m.Offset(e.Place, end)
		return true
	})
	return names, next
}

func (m *merged) make(name string) {
	m.s.t.Helper()
	f := m.lookup(name)
	_, err := m.s.Create(&m.Dir, m.upper(), name, &f, &Object{Mode: unix.S_IFIFO | 0o600})
	must(m.s.t, err)
}

func files(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "file %03d\n", i)
	}
	return b.String()
}

// Every listing ends where the directory ended when the listing began.
func TestEachListingHasItsEnd(t *testing.T) {
	d := newSite(t, "", files(100)).dir("").withNames()
	type listing struct {
		offset uint64
		told   []string
	}
	var all []*listing
	for round := range 10 {
		l := &listing{}
		l.told, l.offset = d.after(0, 3)
		all = append(all, l)
		d.make(fmt.Sprint("new", round))
		must(t, d.remove(l.told[1]))
		must(t, d.remove(fmt.Sprintf("%03d", 99-round)))
		d.make(l.told[1])
	}
	for round, l := range all {
		for {
			names, next := d.after(l.offset, 7)
			if len(names) == 0 {
				break
			}
			l.told, l.offset = append(l.told, names...), next
		}
		slices.Sort(l.told)
		if n := len(slices.Compact(slices.Clone(l.told))); n != len(l.told) {
			t.Errorf("listing %d: %d names told twice", round, len(l.told)-n)
		}
		for i := range len(all) {
			if name := fmt.Sprint("new", i); slices.Contains(l.told, name) != (i < round) {
				t.Errorf("listing %d tells of %s: %v", round, name, i >= round)
			}
		}
		for i := range 90 {
			if name := fmt.Sprintf("%03d", i); !slices.Contains(l.told, name) {
				t.Errorf("listing %d leaves out %s", round, name)
			}
		}
	}
}

// A name that comes back has its place, so listings that begin before and after have the same
// offsets.
func TestNamesKeepTheirPlace(t *testing.T) {
	s := newSite(t, "file a", "file b\nfile c")
	d := s.dir("").withNames()
	d.make("tmp")
	end := d.Begin()
	for range 100 {
		for _, name := range []string{"a", "b", "tmp"} {
			must(t, d.remove(name))
			d.make(name)
		}
	}
	if now := d.Begin(); now != end {
		t.Errorf("the listing ended at %d and ends at %d", end, now)
	}
	d.wantExact("after all")
}

// Listings that begin before and after a change have different offsets if one was read to its end
// in the meantime. A listing that was not, is continued by those after it.
func TestEndsAfterChanges(t *testing.T) {
	d := newSite(t, "", files(20)).dir("").withNames()
	first := d.Begin()
	must(t, d.remove("000"))
	if end := d.Begin(); end != first || d.EndsDiffer() {
		t.Errorf("no listing was read to its end: the first ends at %d, the next at %d", first, end)
	}
	if d.End(first) {
		t.Error("a name was removed after the first listing began: unchanged")
	}
	second := d.Begin()
	if second == first || !d.EndsDiffer() {
		t.Errorf("listings before and after a change have the end %d", first)
	}
	if d.End(first) {
		t.Error("the first listing, read again: unchanged")
	}
	if !d.End(second) || d.Begin() != second || !d.End(second) {
		t.Error("no name came or went during the second listing: changed")
	}
	d.make("000") // at its old place
	if d.End(second) {
		t.Error("a removed name came back during the second listing: unchanged")
	}
	third := d.Begin()
	if third == second || !d.End(third) {
		t.Errorf("listings before and after the return of a name end at %d and %d", second, third)
	}
	d.make("new")
	if end := d.Begin(); end == third || !d.End(end) {
		t.Errorf("listings before and after a new name end at %d and %d", third, end)
	}
	d.wantExact("after all")
}

// 32-bit programs can list a directory that is not very large and does not grow very much.
func TestOffsetsAreSmallWhereTheyCanBe(t *testing.T) {
	for _, c := range []struct {
		place, grown uint64
		small        bool
	}{
		{1, 0, true}, {smallPlace, 0, true}, {smallPlace, smallGrown, true}, {smallPlace + 1, 0, true}, {placeMask, 0, true},
		{3, smallGrown + 1, false}, {smallPlace + 1, 1, false}, {placeMask, placeMask, false},
	} {
		for era := range uint64(eras) {
			d := Dir{table: &nameTable{first: 5, next: 5 + c.grown, era: era}}
			offset := d.Offset(c.place, d.Begin())
			if place, end := d.Resume(offset); place != c.place || end != 5+c.grown {
				t.Errorf("%+v in era %d: %#x stands for place %d, end %d", c, era, offset, place, end)
			}
			if offset == 0 || int64(offset) < 0 || era == 0 && (offset < 1<<31) != c.small {
				t.Errorf("%+v in era %d: offset %#x", c, era, offset)
			}
		}
	}
}

// No offset leads beyond the end of the directory, not even an invalid one.
func TestOffsetsOfOthers(t *testing.T) {
	d := newSite(t, "", files(20)).dir("").withNames()
	end := d.Begin()
	for _, offset := range []uint64{1, 2, 22, 23, 1 << 16, 1<<30 | 7, 1<<31 + 5, 1 << 40, 1<<62 | 4, 1<<62 - 1, 1<<63 - 1, 1 << 63, ^uint64(0)} {
		if _, to := d.Resume(offset); to > end {
			t.Errorf("offset %#x: a listing up to %d of %d", offset, to, end)
		}
		d.after(offset, 100)
	}
}

// A listing under way goes on correctly after its directory has been renumbered.
func TestPlacesAreNumberedAnew(t *testing.T) {
	defer func(old uint64) { maxPlace = old }(maxPlace)
	maxPlace = 70
	for range 3 * eras {
		d := newSite(t, "", files(20)).dir("").withNames()
		for era := range 2 * eras {
			told, offset := d.after(0, 6)
			for i := 0; d.table.era == uint64(era%eras); i++ {
				d.make(fmt.Sprint("x", era, "-", i))
				if i > 3 {
					must(t, d.remove(fmt.Sprint("x", era, "-", i-3)))
				}
			}
			must(t, d.remove(told[2]))
			d.make(told[2])
			for {
				names, next := d.after(offset, 6)
				if len(names) == 0 {
					break
				}
				told, offset = append(told, names...), next
			}
			slices.Sort(told)
			if n := len(slices.Compact(slices.Clone(told))); n != len(told) {
				t.Fatalf("era %d: %d names told twice", era, len(told)-n)
			}
			for i := range 20 {
				if name := fmt.Sprintf("%03d", i); !slices.Contains(told, name) {
					t.Fatalf("era %d: %s is left out", era, name)
				}
			}
			for _, name := range d.names() {
				if strings.HasPrefix(name, "x") {
					must(t, d.remove(name))
				}
			}
		}
		d.wantExact("after all")
	}
}
