package inodecache

import "testing"

// A restored node has its id and count, and no new node gets an id that was used.
func TestRestore(t *testing.T) {
	table := NewTable[*restored]()
	n, next := &restored{}, &restored{}
	table.Restore(n, 70, 2)
	table.Skip(100)
	table.Skip(50)
	if got, ok := table.Get(70); !ok || got != n || n.ID() != 70 {
		t.Errorf("id %d leads to %p, want %p", n.ID(), got, n)
	}
	if table.Insert(next); next.ID() != 101 {
		t.Errorf("the next id is %d, want 101", next.ID())
	}
	if _, last := table.Unref(70, 1); last {
		t.Error("the count was 1")
	}
	if _, last := table.Unref(70, 1); !last || !table.Drop(n) || table.Len() != 1 {
		t.Errorf("the node is not dropped; %d nodes", table.Len())
	}
}

type restored struct{ Entry }

// A restored number is that of the object, and no other object gets it.
func TestRestoreNumbers(t *testing.T) {
	for _, width := range []uint{32, 64} {
		before := NewNumbers([]uint64{1}, width, 64)
		foreign, copied := Key{9, 9}, Key{1, 5}
		taken := before.Of(foreign) // from the top of the range
		n := NewNumbers([]uint64{1}, width, 64)
		n.Restore(copied, 77)
		n.Reserve(taken)
		n.Reserve(12)
		if got := n.Of(copied); got != 77 {
			t.Errorf("width %d: the number is %d, want 77", width, got)
		}
		if other := n.Of(Key{9, 10}); other == taken {
			t.Errorf("width %d: another object has %d", width, taken)
		}
	}
}
