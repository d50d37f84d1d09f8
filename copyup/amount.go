package copyup

// Amount is how much of the data of a regular file a copy gets. The zero value is [First] of 0
// bytes.
type Amount struct {
	extent extent
	size   int64 // of first, in bytes
}

type extent uint8

const (
	first extent = iota
	whole
	hole
)

// First is the first size bytes. The copy has exactly that size: a longer source is cut off, a
// shorter one is followed by a hole.
func First(size int64) Amount { return Amount{extent: first, size: size} }

// Whole is all data.
func Whole() Amount { return Amount{extent: whole} }

// Hole is no data: the copy is a hole of the source's size, and [Copier.Complete] fills it later.
func Hole() Amount { return Amount{extent: hole} }

// isNothing reports whether no data is read from the source.
func (a Amount) isNothing() bool { return a.extent == hole || a == Amount{} }

// of is how many of size bytes of the source are copied.
func (a Amount) of(size int64) int64 {
	if a.extent == first {
		return min(size, a.size)
	}
	return size
}
