//go:build lockrank

package lock

import (
	"strings"
	"testing"
)

// panicOf returns the text that f panics with. Empty: it does not.
func panicOf(f func()) (text string) {
	defer func() {
		if p := recover(); p != nil {
			text = p.(string)
		}
	}()
	f()
	return ""
}

// A goroutine that takes locks from the outermost to the innermost is in order.
func TestInOrder(t *testing.T) {
	var moves Mutex[Moves]
	var parent, child Mutex[Dir]
	var stores RWMutex[Stores]
	var leaf Mutex[Leaf]
	for range 2 {
		moves.Lock()
		parent.Lock()
		child.Lock()
		stores.RLock()
		leaf.Lock()
		leaf.Unlock()
		parent.Unlock() // in any order
		stores.RUnlock()
		child.Unlock()
		moves.Unlock()
	}
	leaf.Lock()
	leaf.Unlock()
	moves.Lock()
	moves.Unlock()
}

// Each violation panics, and the text has both ranks and the place where the held lock was taken.
func TestViolations(t *testing.T) {
	var dir Mutex[Dir]
	var place, other Mutex[Place]
	var stores RWMutex[Stores]
	for name, c := range map[string]struct {
		hold, release, take func()
		want                string
	}{
		"an outer lock under an inner one": {place.Lock, place.Unlock, dir.Lock, "lock.Dir is taken while lock.Place is held"},
		"two locks of one rank":            {place.Lock, place.Unlock, other.Lock, "lock.Place is taken while lock.Place is held"},
		"the same lock again":              {dir.Lock, dir.Unlock, dir.Lock, "lock.Dir is taken while lock.Dir is held"},
		"a reader's lock for writing":      {stores.RLock, stores.RUnlock, stores.Lock, "lock.Stores is taken while lock.Stores"},
		"under a lock by TryLock":          {func() { place.TryLock() }, place.Unlock, dir.Lock, "lock.Dir is taken while lock.Place is held"},
	} {
		c.hold()
		text := panicOf(c.take)
		if !strings.Contains(text, c.want) || !strings.Contains(text, "TestViolations") {
			t.Errorf("%s: %q, want %q and the place", name, text, c.want)
		}
		c.release()
	}
	if text := panicOf(func() { dir.Lock(); dir.Unlock() }); text != "" {
		t.Errorf("with nothing held: %s", text)
	}
}

// TryLock is not checked, because it does not wait.
func TestTryLockIsFree(t *testing.T) {
	var dir Mutex[Dir]
	var place Mutex[Place]
	place.Lock()
	defer place.Unlock()
	if !dir.TryLock() {
		t.Fatal("the lock is free")
	}
	dir.Unlock()
}

// Another goroutine may unlock what this one has locked.
func TestUnlockElsewhere(t *testing.T) {
	var place Mutex[Place]
	var dir Mutex[Dir]
	place.Lock()
	done := make(chan struct{})
	go func() { place.Unlock(); close(done) }()
	<-done
	if text := panicOf(func() { dir.Lock(); dir.Unlock() }); text != "" {
		t.Errorf("after the unlock: %s", text)
	}
}

// A rank that is not in the order cannot be checked.
func TestUnknownRank(t *testing.T) {
	type stranger struct{}
	var m Mutex[stranger]
	if text := panicOf(m.Lock); !strings.Contains(text, "not in the lock order") {
		t.Errorf("%q", text)
	}
}
