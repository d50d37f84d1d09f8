package inodecache

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
)

// thing is a node.
type thing struct {
	Entry
	name string
}

// newTree returns a table with a root.
func newTree() (*Table[*thing], *thing) {
	t, root := NewTable[*thing](), &thing{name: "root"}
	t.Insert(root)
	return t, root
}

func TestRootHasTheRootID(t *testing.T) {
	table, root := newTree()
	if root.ID() != RootID {
		t.Fatalf("root has id %d", root.ID())
	}
	if n, ok := table.Get(RootID); !ok || n != root {
		t.Fatalf("Get(RootID) = %v, %v", n, ok)
	}
	if _, last := table.Unref(RootID, 1); !last {
		t.Fatal("the root has a reference left")
	}
	if table.Drop(root) {
		t.Fatal("the root was dropped")
	}
	if table.Len() != 1 {
		t.Fatalf("Len = %d", table.Len())
	}
}

func TestReferencesAreCounted(t *testing.T) {
	table, _ := newTree()
	n := &thing{name: "n"}
	if n.ID() != 0 {
		t.Fatalf("id %d before it is inserted", n.ID())
	}
	table.Insert(n)
	for range 2 {
		if !table.Ref(n) {
			t.Fatal("no reference on a node that is there")
		}
	}
	if table.Drop(n) {
		t.Fatal("dropped with three references")
	}
	if got, last := table.Unref(n.ID(), 2); got != n || last {
		t.Fatalf("Unref of two = %v, %v; one is left", got, last)
	}
	if got, last := table.Unref(n.ID(), 1); got != n || !last {
		t.Fatalf("Unref of the last = %v, %v", got, last)
	}
	if !table.Drop(n) {
		t.Fatal("not dropped without a reference")
	}
	if table.Drop(n) {
		t.Fatal("dropped twice")
	}
	if table.Ref(n) {
		t.Fatal("a reference on a dropped node")
	}
	if _, ok := table.Get(n.ID()); ok {
		t.Fatal("a dropped node is still found")
	}
}

func TestNodeWithoutReferenceCanBeTakenUpAgain(t *testing.T) {
	table, _ := newTree()
	n := &thing{}
	table.Insert(n)
	table.Unref(n.ID(), 1)
	if !table.Ref(n) {
		t.Fatal("no reference on a node that was not dropped")
	}
	if table.Drop(n) {
		t.Fatal("dropped with a reference")
	}
}

func TestUnrefOfMoreThanThereAreCountsAsAll(t *testing.T) {
	table, _ := newTree()
	n := &thing{}
	table.Insert(n)
	if _, last := table.Unref(n.ID(), 1000); !last {
		t.Fatal("a reference is left")
	}
	if _, last := table.Unref(n.ID(), 1); !last {
		t.Fatal("less than no reference")
	}
	if got, last := table.Unref(4711, 1); got != nil || last {
		t.Fatalf("Unref of an unknown id = %v, %v", got, last)
	}
}

func TestIDsAreNeverUsedTwice(t *testing.T) {
	table, _ := newTree()
	seen := map[uint64]bool{RootID: true}
	for range 3 * shards {
		n := &thing{}
		table.Insert(n)
		if seen[n.ID()] {
			t.Fatalf("id %d given twice", n.ID())
		}
		seen[n.ID()] = true
		table.Unref(n.ID(), 1)
		table.Drop(n)
	}
	if table.Len() != 1 {
		t.Fatalf("Len = %d", table.Len())
	}
}

// TestRenew checks that a renewed node has two ids and one lookup count, and that Drop removes both
// ids.
func TestRenew(t *testing.T) {
	table, _ := newTree()
	n := &thing{}
	table.Insert(n)
	first := n.ID()
	if n.Serial() != first {
		t.Fatalf("Serial = %d, want %d", n.Serial(), first)
	}
	table.Renew(n)
	second := n.ID()
	if second == first || n.Serial() != first {
		t.Fatalf("renewed to %d, Serial = %d", second, n.Serial())
	}
	table.Renew(n)
	if n.ID() != second {
		t.Fatal("renewed twice")
	}
	for _, id := range []uint64{first, second} {
		if got, ok := table.Get(id); !ok || got != n {
			t.Fatalf("Get(%d) = %v, %v", id, got, ok)
		}
	}
	if !table.Ref(n) || table.Len() != 2 {
		t.Fatalf("Len = %d", table.Len())
	}
	if _, last := table.Unref(second, 1); last {
		t.Fatal("the reference on the first id is gone")
	}
	if got, last := table.Unref(first, 1); got != n || !last || !table.Drop(n) {
		t.Fatal("not dropped without a reference")
	}
	for _, id := range []uint64{first, second} {
		if _, ok := table.Get(id); ok {
			t.Fatalf("a dropped node is found as %d", id)
		}
	}
	table.Renew(n)
	if _, ok := table.Get(n.ID()); ok || table.Len() != 1 {
		t.Fatal("a dropped node was renewed")
	}
}

// ofAny takes the node of each object.
func ofAny(*thing) bool { return true }

// The node of an object that is gone loses the key, and gets no reference.
func TestLinkedOfAnotherObject(t *testing.T) {
	table, _ := newTree()
	k := Key{Dev: 1, Ino: 2}
	a, b := &thing{name: "a"}, &thing{name: "b"}
	table.Insert(a)
	table.Insert(b)
	table.Link(k, a)
	if n, ok := table.Linked(k, func(n *thing) bool { return n != a }); ok || n != nil {
		t.Fatalf("Linked = %v, %v", n, ok)
	}
	if _, last := table.Unref(a.ID(), 1); !last {
		t.Fatal("the node has a reference more")
	}
	if n, made := table.Link(k, b); !made || n != b {
		t.Fatalf("Link = %v, %v", n, made)
	}
}

func TestLinked(t *testing.T) {
	table, _ := newTree()
	k := Key{Dev: 1, Ino: 2}
	if n, ok := table.Linked(k, ofAny); ok || n != nil {
		t.Fatalf("Linked before Link = %v, %v", n, ok)
	}
	a, b := &thing{name: "a"}, &thing{name: "b"}
	table.Insert(a)
	table.Insert(b)
	table.Link(k, a)
	if n, ok := table.Linked(k, ofAny); !ok || n != a {
		t.Fatalf("Linked = %v, %v", n, ok)
	}
	if _, last := table.Unref(a.ID(), 1); last {
		t.Fatal("Linked gave no reference")
	}
	table.Unlink(k, b)
	if n, _ := table.Linked(k, ofAny); n != a {
		t.Fatal("unlinked by another node")
	}
	table.Unref(a.ID(), 2)
	table.Drop(a)
	if n, ok := table.Linked(k, ofAny); ok || n != nil {
		t.Fatalf("Linked of a dropped node = %v, %v", n, ok)
	}
	table.Link(k, b)
	table.Unlink(k, a) // for the node that k had before
	if n, ok := table.Linked(k, ofAny); !ok || n != b {
		t.Fatalf("Linked after a late Unlink = %v, %v", n, ok)
	}
	table.Unlink(k, b)
	if _, ok := table.Linked(k, ofAny); ok {
		t.Fatal("still linked")
	}
}

// TestTheFirstLinkWins checks that the second Link of an object returns the node of the first,
// unless that node is dropped.
func TestTheFirstLinkWins(t *testing.T) {
	table, _ := newTree()
	k := Key{Dev: 1, Ino: 2}
	a, b, c := &thing{name: "a"}, &thing{name: "b"}, &thing{name: "c"}
	for _, n := range []*thing{a, b, c} {
		table.Insert(n)
	}
	for range 2 { // the second time changes nothing
		if n, made := table.Link(k, a); n != a || !made {
			t.Fatalf("the first is %v, %v", n, made)
		}
	}
	if n, made := table.Link(k, b); n != a || made {
		t.Fatalf("the second gives %v, %v", n, made)
	}
	if _, last := table.Unref(a.ID(), 1); last {
		t.Fatal("the second got no reference")
	}
	if _, last := table.Unref(a.ID(), 1); !last || !table.Drop(a) {
		t.Fatal("the first took a reference for itself")
	}
	if n, made := table.Link(k, c); n != c || !made {
		t.Fatalf("after the first is gone: %v, %v", n, made)
	}
}

// TestConcurrentReferences checks that a node stays in the table while a goroutine has a reference
// on it, whatever other goroutines do.
func TestConcurrentReferences(t *testing.T) {
	table, _ := newTree()
	const keys = 8
	var inUse [keys]sync.Map // from nodes to numbers of references
	var dropped sync.Map
	key := func(i int) Key { return Key{Ino: uint64(i)} }
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			r := rand.New(rand.NewPCG(1, uint64(g)))
			for range 3000 {
				i := r.IntN(keys)
				n, ok := table.Linked(key(i), ofAny)
				if !ok {
					mine := &thing{}
					table.Insert(mine)
					if n, ok = table.Link(key(i), mine); !ok {
						table.Unref(mine.ID(), 1)
						table.Drop(mine)
					}
				}
				count, _ := inUse[i].LoadOrStore(n, &atomic.Int64{})
				count.(*atomic.Int64).Add(1)
				if _, ok := dropped.Load(n); ok {
					t.Error("a reference on a dropped node")
				}
				if got, ok := table.Get(n.ID()); !ok || got != n {
					t.Error("a node in use is not found")
				}
				if table.Ref(n) {
					table.Unref(n.ID(), 1)
				} else {
					t.Error("a node in use was dropped")
				}
				count.(*atomic.Int64).Add(-1)
				if _, last := table.Unref(n.ID(), 1); last && table.Drop(n) {
					if c := count.(*atomic.Int64).Load(); c != 0 {
						t.Errorf("dropped while %d use it", c)
					}
					dropped.Store(n, true)
					table.Unlink(key(i), n)
				}
			}
		}()
	}
	wg.Wait()
	if n := table.Len(); n != 1 {
		t.Fatalf("%d nodes are left", n-1)
	}
}

// TestLinkWhile checks that a node which is no longer valid does not become that of its object.
func TestLinkWhile(t *testing.T) {
	table, _ := newTree()
	k := Key{Dev: 1, Ino: 2}
	first, second := &thing{name: "first"}, &thing{name: "second"}
	table.Insert(first)
	table.Insert(second)
	valid := func() bool { return true }
	stale := func() bool { return false }
	if n, made := table.LinkWhile(k, first, stale); n != first || made {
		t.Fatalf("a stale node: %v, %v", n, made)
	}
	if n, known := table.Linked(k, ofAny); known {
		t.Fatalf("the object has the node %v", n)
	}
	if n, made := table.LinkWhile(k, first, valid); n != first || !made {
		t.Fatalf("a valid node: %v, %v", n, made)
	}
	if n, made := table.LinkWhile(k, second, stale); n != first || made {
		t.Fatalf("a second node: %v, %v", n, made)
	}
}
