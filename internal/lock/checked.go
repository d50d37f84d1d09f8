//go:build lockrank

package lock

import (
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync"
)

// Checked reports whether this build checks the order.
const Checked = true

// Mutex is a sync.Mutex of rank R.
type Mutex[R any] struct {
	mu     sync.Mutex
	holder uint64 // the goroutine that has it, guarded by mu
}

// Lock locks m. It panics if that is out of order.
func (m *Mutex[R]) Lock() {
	g := goroutine()
	check[R](g, m)
	m.mu.Lock()
	m.holder = g
	hold[R](g, m)
}

// TryLock locks m if that does not wait.
func (m *Mutex[R]) TryLock() bool {
	locked := m.mu.TryLock()
	if locked {
		m.holder = goroutine()
		hold[R](m.holder, m)
	}
	return locked
}

// Unlock unlocks m, which another goroutine may have locked.
func (m *Mutex[R]) Unlock() {
	dropFrom(m.holder, m)
	m.mu.Unlock()
}

// RWMutex is a sync.RWMutex of rank R. Readers count as holders: one that waits behind a writer
// blocks as a writer does.
type RWMutex[R any] struct{ mu sync.RWMutex }

// Lock locks m for writing. It panics if that is out of order.
func (m *RWMutex[R]) Lock() {
	g := goroutine()
	check[R](g, m)
	m.mu.Lock()
	hold[R](g, m)
}

// Unlock unlocks m, which is locked for writing.
func (m *RWMutex[R]) Unlock() {
	drop(m)
	m.mu.Unlock()
}

// RLock locks m for reading. It panics if that is out of order.
func (m *RWMutex[R]) RLock() {
	g := goroutine()
	check[R](g, m)
	m.mu.RLock()
	hold[R](g, m)
}

// RUnlock unlocks m, which is locked for reading.
func (m *RWMutex[R]) RUnlock() {
	drop(m)
	m.mu.RUnlock()
}

// held is a lock that a goroutine has.
type held struct {
	lock  any // a pointer to the Mutex or RWMutex
	rank  any
	stack []uintptr // where it was taken
}

// holders has the locks of each goroutine, by its number, in the order in which they were taken. It
// is divided by the number, so that goroutines seldom wait for each other here.
var holders [64]struct {
	sync.Mutex
	of map[uint64][]held
}

// check panics if goroutine g, the calling one, may not wait for a lock of rank R.
func check[R any](g uint64, lock any) {
	var rank R
	at := slices.Index(order, any(rank))
	if at < 0 {
		panic(fmt.Sprintf("lock: %T is not in the lock order", rank))
	}
	part := &holders[g%uint64(len(holders))]
	part.Lock()
	mine := part.of[g]
	part.Unlock() // g alone appends to mine
	for _, h := range mine {
		had := slices.Index(order, h.rank)
		if h.lock == lock || had > at || had == at && !nests(rank) {
			panic(fmt.Sprintf("lock: %T is taken while %T is held, which was taken at\n%s\nThe lock order is in fs/doc.go.",
				rank, h.rank, frames(h.stack)))
		}
	}
}

// hold notes that goroutine g, the calling one, has taken a lock.
func hold[R any](g uint64, lock any) {
	var rank R
	h := held{lock: lock, rank: rank, stack: make([]uintptr, 12)}
	h.stack = h.stack[:runtime.Callers(3, h.stack)] // without Callers, hold and Lock
	part := &holders[g%uint64(len(holders))]
	part.Lock()
	defer part.Unlock()
	if part.of == nil {
		part.of = map[uint64][]held{}
	}
	part.of[g] = append(part.of[g], h)
}

// drop takes a lock from the goroutine that has it. That is mostly the calling one.
func drop(lock any) {
	g := goroutine()
	if dropFrom(g, lock) {
		return
	}
	for i := range holders {
		part := &holders[i]
		part.Lock()
		others := slices.Collect(maps.Keys(part.of))
		part.Unlock()
		for _, other := range others {
			if dropFrom(other, lock) {
				return
			}
		}
	}
}

// dropFrom takes a lock from one goroutine, and reports whether it had it.
func dropFrom(g uint64, lock any) bool {
	part := &holders[g%uint64(len(holders))]
	part.Lock()
	defer part.Unlock()
	mine := part.of[g]
	for i := len(mine) - 1; i >= 0; i-- {
		if mine[i].lock != lock {
			continue
		}
		if mine = slices.Concat(mine[:i], mine[i+1:]); len(mine) == 0 {
			delete(part.of, g)
		} else {
			part.of[g] = mine
		}
		return true
	}
	return false
}

// goroutine returns the number of the calling goroutine. Its stack begins with "goroutine 7
// [running]:".
func goroutine() (number uint64) {
	var buf [64]byte
	for _, c := range buf[len("goroutine "):runtime.Stack(buf[:], false)] {
		if c < '0' || c > '9' {
			break
		}
		number = number*10 + uint64(c-'0')
	}
	return number
}

func frames(stack []uintptr) string {
	var b strings.Builder
	for frames := runtime.CallersFrames(stack); ; {
		f, more := frames.Next()
		fmt.Fprintf(&b, "\t%s\n\t\t%s:%d\n", f.Function, f.File, f.Line)
		if !more {
			return b.String()
		}
	}
}
