package inodecache

import "github.com/fuse-overlay/fuse-overlay/internal/lock"

// LRU keeps up to max handles open, and closes the least recently used first. It never closes a
// handle in use, so it may hold more than max.
type LRU[K comparable, V any] struct {
	close func(V) // immutable; called with no lock held
	max   int     // immutable

	mu    lock.Mutex[lock.Leaf] // guards the rest and the fields of each Held
	byKey map[K]*Held[K, V]
	head  Held[K, V] // ring: head.next is the most recent
	uses  Uses       // without Open
}

// Held is a handle in use.
type Held[K comparable, V any] struct {
	Value      V // immutable
	key        K
	refs       int
	removed    bool // from byKey: the last Release closes the handle
	prev, next *Held[K, V]
}

// NewLRU returns a cache of at most maximum handles. It calls closeHandle to close one.
func NewLRU[K comparable, V any](maximum int, closeHandle func(V)) *LRU[K, V] {
	l := &LRU[K, V]{close: closeHandle, max: maximum, byKey: map[K]*Held[K, V]{}}
	l.head.prev, l.head.next = &l.head, &l.head
	return l
}

// Acquire returns the handle of k, or nil if there is none. The handle is in use until
// [LRU.Release].
func (l *LRU[K, V]) Acquire(k K) *Held[K, V] {
	l.mu.Lock()
	defer l.mu.Unlock()
	h := l.byKey[k]
	if h != nil {
		l.uses.Found++
		h.refs++
		l.unring(h)
		l.ring(h)
	}
	return h
}

// Share adds one use of h, which ends with another [LRU.Release]. Precondition: h is in use.
func (l *LRU[K, V]) Share(h *Held[K, V]) {
	l.mu.Lock()
	h.refs++
	l.mu.Unlock()
}

// Add adds the handle v of k and returns it. If k has a handle already, Add closes v and returns
// that handle. The handle is in use until [LRU.Release].
func (l *LRU[K, V]) Add(k K, v V) *Held[K, V] {
	l.mu.Lock()
	l.uses.Added++
	if h := l.byKey[k]; h != nil {
		h.refs++
		l.mu.Unlock()
		l.close(v)
		return h
	}
	h := &Held[K, V]{Value: v, key: k, refs: 1}
	l.byKey[k] = h
	l.ring(h)
	var old []*Held[K, V]
	for c := l.head.prev; len(l.byKey) > l.max && c != &l.head; {
		prev := c.prev
		if c.refs == 0 {
			l.remove(c)
			old = append(old, c)
		}
		c = prev
	}
	l.mu.Unlock()
	l.closeAll(old)
	return h
}

// Release ends one use of h.
func (l *LRU[K, V]) Release(h *Held[K, V]) {
	l.mu.Lock()
	h.refs--
	last := h.removed && h.refs == 0
	l.mu.Unlock()
	if last {
		l.close(h.Value)
	}
}

// Evict removes the handle of k and closes it. If it is in use, the last Release closes it.
func (l *LRU[K, V]) Evict(k K) {
	l.mu.Lock()
	h := l.byKey[k]
	idle := false
	if h != nil {
		l.remove(h)
		idle = h.refs == 0
	}
	l.mu.Unlock()
	if idle {
		l.close(h.Value)
	}
}

// CloseIdle removes and closes every handle that is not in use.
func (l *LRU[K, V]) CloseIdle() {
	l.mu.Lock()
	var old []*Held[K, V]
	for _, h := range l.byKey {
		if h.refs == 0 {
			l.remove(h)
			old = append(old, h)
		}
	}
	l.mu.Unlock()
	l.closeAll(old)
}

// Clear is [LRU.Evict] of all handles.
func (l *LRU[K, V]) Clear() {
	l.mu.Lock()
	var old []*Held[K, V]
	for _, h := range l.byKey {
		l.remove(h)
		if h.refs == 0 {
			old = append(old, h)
		}
	}
	l.mu.Unlock()
	l.closeAll(old)
}

// Len returns the number of handles, idle and in use. Removed handles do not count.
func (l *LRU[K, V]) Len() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.byKey)
}

// Uses counts how a cache of handles was used.
type Uses struct {
	// Open is [LRU.Len].
	Open uint64
	// Found is how many calls of [LRU.Acquire] had a handle, Added how many handles were opened
	// because there was none.
	Found, Added uint64
}

// Uses returns the counters of the cache.
func (l *LRU[K, V]) Uses() Uses {
	l.mu.Lock()
	defer l.mu.Unlock()
	u := l.uses
	u.Open = uint64(len(l.byKey))
	return u
}

func (l *LRU[K, V]) closeAll(hs []*Held[K, V]) {
	for _, h := range hs {
		l.close(h.Value)
	}
}

// Preconditions for the next three: l.mu is held.

func (l *LRU[K, V]) remove(h *Held[K, V]) {
	delete(l.byKey, h.key)
	l.unring(h)
	h.removed = true
}

func (l *LRU[K, V]) ring(h *Held[K, V]) {
	h.prev, h.next = &l.head, l.head.next
	h.prev.next, h.next.prev = h, h
}

func (l *LRU[K, V]) unring(h *Held[K, V]) {
	h.prev.next, h.next.prev = h.next, h.prev
}
