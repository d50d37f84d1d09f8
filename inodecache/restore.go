package inodecache

// Restore gives n an id that it had in a process before this one, and its lookup count.
// Precondition: no other node has the id.
func (t *Table[N]) Restore(n N, id, lookups uint64) {
	e := n.CacheEntry()
	e.id.Store(id)
	e.lookups = lookups
	s := t.of(id)
	s.mu.Lock()
	s.nodes[id] = n
	s.mu.Unlock()
	t.count.Add(1)
	t.Skip(id)
}

// Skip keeps [Table.Insert] from giving id, or a smaller one.
func (t *Table[N]) Skip(id uint64) {
	for last := t.last.Load(); last < id && !t.last.CompareAndSwap(last, id); last = t.last.Load() {
	}
}

// Restore gives the object k the number that it had in a process before this one.
func (n *Numbers) Restore(k Key, ino uint64) {
	n.Reserve(ino)
	n.SetOrigin(k, ino)
}

// maxFreshBits is the width of a number larger than that of the calls of freshLocked in the life of
// a mount with wide numbers, and unusedBits by how much narrower it is with narrow ones.
const (
	maxFreshBits = 30
	unusedBits   = 12
)

// Reserve keeps a number from being given to another object, if it is one of those from the top of
// the range.
func (n *Numbers) Reserve(ino uint64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if below := ^uint64(0)>>(64-n.width) - ino; below < 1<<min(maxFreshBits, n.width-unusedBits) {
		n.taken = max(n.taken, below)
	}
}
