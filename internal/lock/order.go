//go:build lockrank

package lock

// order lists the ranks, outermost first.
var order = []any{
	Handover{}, NextFile{}, CopyUp{}, Load{}, Moves{}, Dir{}, Links{}, Opens{}, Place{}, Stores{}, Linked{}, Closing{}, Leaf{},
}

// nests reports whether a goroutine may hold two locks of the rank.
func nests(rank any) bool { return rank == any(Dir{}) }
