package copyup

// Amount is how much of the data of a regular file a copy gets. The zero value is First(0).
type Amount struct {
	extent extent
	size   int64 // in bytes; of the extent first only
}

type extent uint8

const (
	first extent = iota
	whole
	hole
)

// First is the first size bytes. The copy has exactly that size. If the source is shorter, a hole
// fills the rest.
func First(size int64) Amount { return Amount{extent: first, size: size} }

// Whole is all data.
func Whole() Amount { return Amount{extent: whole} }

// Hole is no data: the copy is a hole of the source's size. [Copier.Complete] copies the data
// later.
func Hole() Amount { return Amount{extent: hole} }

// readsNothing reports whether the copy needs no data from the source.
func (a Amount) readsNothing() bool { return a.extent == hole || a == Amount{} }

// Of returns how many bytes the copy takes from a source of size bytes.
func (a Amount) Of(size int64) int64 {
	if a.extent == first {
		return min(size, a.size)
	}
	return size
}

// truncates reports whether the copy of a file of size bytes has another size.
func (a Amount) truncates(size int64) bool { return a.extent == first && a.size != size }
