package inodecache

import (
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
)

// fixture is a cache of strings as handles, and the list of handles that it has closed.
type fixture struct {
	*LRU[int, string]
	closed []string
}

func newFixture(maximum int) *fixture {
	f := &fixture{}
	f.LRU = NewLRU[int](maximum, func(v string) { f.closed = append(f.closed, v) })
	return f
}

func (f *fixture) add(k int, v string) { f.Release(f.Add(k, v)) }

func (f *fixture) touch(k int) {
	if h := f.Acquire(k); h != nil {
		f.Release(h)
	}
}

func (f *fixture) want(t *testing.T, what string, open int, closed ...string) {
	t.Helper()
	if !slices.Equal(f.closed, closed) {
		t.Errorf("%s: closed %v, want %v", what, f.closed, closed)
	}
	if f.Len() != open {
		t.Errorf("%s: %d handles, want %d", what, f.Len(), open)
	}
}

func TestAcquire(t *testing.T) {
	f := newFixture(2)
	if h := f.Acquire(1); h != nil {
		t.Fatalf("an unknown key has %v", h)
	}
	f.add(1, "a")
	h := f.Acquire(1)
	if h == nil || h.Value != "a" {
		t.Fatalf("Acquire = %v", h)
	}
	f.Release(h)
	f.want(t, "in use and released", 1)
}

func TestUses(t *testing.T) {
	f := newFixture(2)
	f.touch(1)
	f.add(1, "a")
	f.touch(1)
	f.add(2, "b")
	f.add(2, "again")
	f.add(3, "c")
	f.touch(2)
	f.touch(9)
	if got, want := f.Uses(), (Uses{Open: 2, Found: 2, Added: 4}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}

func TestTheLeastRecentlyUsedGoesFirst(t *testing.T) {
	f := newFixture(3)
	f.add(1, "a")
	f.add(2, "b")
	f.add(3, "c")
	f.touch(1)
	f.add(4, "d")
	f.want(t, "one too many", 3, "b")
	f.touch(3)
	f.add(5, "e")
	f.want(t, "two too many", 3, "b", "a")
	f.add(6, "f")
	f.want(t, "three too many", 3, "b", "a", "d")
}

func TestHandlesInUseAreNotClosed(t *testing.T) {
	f := newFixture(1)
	a := f.Add(1, "a")
	b := f.Add(2, "b")
	f.want(t, "both in use", 2)
	f.Release(a)
	f.want(t, "over the bound until the next Add", 2)
	c := f.Add(3, "c")
	f.want(t, "the idle one is closed", 2, "a")
	f.Release(b)
	f.Release(c)
	f.add(4, "d")
	f.want(t, "within the bound again", 1, "a", "b", "c")
}

// TestShare checks that a shared handle is in use until each of its users has released it.
func TestShare(t *testing.T) {
	f := newFixture(2)
	h := f.Add(1, "a")
	f.Share(h)
	f.Evict(1)
	f.Release(h)
	f.want(t, "released by one", 0)
	f.Release(h)
	f.want(t, "released by both", 0, "a")
}

func TestBoundOfZeroKeepsNothingIdle(t *testing.T) {
	f := newFixture(0)
	f.add(1, "a")
	f.add(2, "b")
	f.want(t, "second", 1, "a")
}

func TestTheFirstOfTwoAddsWins(t *testing.T) {
	f := newFixture(2)
	first := f.Add(1, "first")
	second := f.Add(1, "second")
	if second != first || second.Value != "first" {
		t.Fatalf("two handles of one key: %v, %v", first, second)
	}
	f.want(t, "the second is closed", 1, "second")
	f.Evict(1)
	f.Release(first)
	f.want(t, "one still uses it", 0, "second")
	f.Release(second)
	f.want(t, "none uses it", 0, "second", "first")
}

func TestEvict(t *testing.T) {
	f := newFixture(4)
	f.Evict(1)
	f.add(1, "idle")
	f.Evict(1)
	f.want(t, "idle", 0, "idle")
	h := f.Add(2, "used")
	f.Evict(2)
	f.want(t, "used", 0, "idle")
	if f.Acquire(2) != nil {
		t.Error("an evicted handle is found")
	}
	f.add(2, "next")
	f.want(t, "the key's next handle", 1, "idle")
	f.Release(h)
	f.want(t, "released", 1, "idle", "used")
	if h := f.Acquire(2); h == nil || h.Value != "next" {
		t.Errorf("the next handle is %v", h)
	}
}

func TestClear(t *testing.T) {
	f := newFixture(4)
	f.add(1, "idle")
	h := f.Add(2, "used")
	f.Clear()
	f.want(t, "used", 0, "idle")
	f.Release(h)
	f.want(t, "released", 0, "idle", "used")
	f.Clear()
	f.add(3, "next")
	f.want(t, "usable after Clear", 1, "idle", "used")
}

// TestConcurrentHandles checks that the cache closes every handle once, and none in use.
func TestConcurrentHandles(t *testing.T) {
	type file struct{ users, closed atomic.Int64 }
	var made []*file
	var mu sync.Mutex
	l := NewLRU[int](4, func(f *file) {
		if f.users.Load() != 0 {
			t.Error("closed while in use")
		}
		if f.closed.Add(1) != 1 {
			t.Error("closed twice")
		}
	})
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			r := rand.New(rand.NewPCG(2, uint64(g)))
			for range 2000 {
				k := r.IntN(12)
				switch r.IntN(20) {
				case 0:
					l.Evict(k)
					continue
				case 1:
					l.Clear()
					continue
				}
				h := l.Acquire(k)
				if h == nil {
					f := &file{}
					mu.Lock()
					made = append(made, f)
					mu.Unlock()
					h = l.Add(k, f)
				}
				h.Value.users.Add(1)
				if h.Value.closed.Load() != 0 {
					t.Error("Acquire returned a closed handle")
				}
				h.Value.users.Add(-1)
				l.Release(h)
			}
		}()
	}
	wg.Wait()
	l.Clear()
	for _, f := range made {
		if f.closed.Load() != 1 {
			t.Fatal("a handle was left open")
		}
	}
	if l.Len() != 0 {
		t.Fatalf("Len = %d", l.Len())
	}
}
