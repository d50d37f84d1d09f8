//go:build lockrank

package lock

import (
	"bytes"
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"sync"
)

// Checked reports whether this build checks the order.
const Checked = true

// Mutex is a sync.Mutex of rank R.
type Mutex[R any] struct{ mu sync.Mutex }

// Lock locks m. It panics if that is out of order.
func (m *Mutex[R]) Lock() {
	check[R](m)
	m.mu.Lock()
	hold[R](m)
}

// TryLock locks m if that does not wait.
func (m *Mutex[R]) TryLock() bool {
	locked := m.mu.TryLock()
	if locked {
		hold[R](m)
	}
	return locked
}

// Unlock unlocks m.
func (m *Mutex[R]) Unlock() {
	drop(m)
	m.mu.Unlock()
}

// RWMutex is a sync.RWMutex of rank R. Readers count as holders: one that waits behind a writer blocks as a writer does.
type RWMutex[R any] struct{ mu sync.RWMutex }

// Lock locks m for writing. It panics if that is out of order.
func (m *RWMutex[R]) Lock() {
	check[R](m)
	m.mu.Lock()
	hold[R](m)
}

// Unlock unlocks m, which is locked for writing.
func (m *RWMutex[R]) Unlock() {
	drop(m)
	m.mu.Unlock()
}

// RLock locks m for reading. It panics if that is out of order.
func (m *RWMutex[R]) RLock() {
	check[R](m)
	m.mu.RLock()
	hold[R](m)
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

// holders are the locks of each goroutine, by its number, in the order in which they were taken.
var holders = struct {
	sync.Mutex
	of map[uint64][]held
}{of: map[uint64][]held{}}

// check panics if the calling goroutine may not wait for a lock of rank R.
func check[R any](lock any) {
	var rank R
	at := slices.Index(order, any(rank))
	if at < 0 {
		panic(fmt.Sprintf("lock: %T is not in the lock order", rank))
	}
	holders.Lock()
	mine := slices.Clone(holders.of[goroutine()])
	holders.Unlock()
	for _, h := range mine {
		had := slices.Index(order, h.rank)
		if h.lock == lock || had > at || had == at && !nests(rank) {
			panic(fmt.Sprintf("lock: %T is taken while %T is held, which was taken at\n%s\nThe lock order is in fs/doc.go.",
				rank, h.rank, frames(h.stack)))
		}
	}
}

func hold[R any](lock any) {
	var rank R
	h := held{lock: lock, rank: rank, stack: make([]uintptr, 32)}
	h.stack = h.stack[:runtime.Callers(3, h.stack)] // without Callers, hold and Lock
	holders.Lock()
	defer holders.Unlock()
	g := goroutine()
	holders.of[g] = append(holders.of[g], h)
}

// drop takes the lock from the goroutine that has it, which need not be the calling one.
func drop(lock any) {
	holders.Lock()
	defer holders.Unlock()
	if dropFrom(goroutine(), lock) {
		return
	}
	for g := range holders.of {
		if dropFrom(g, lock) {
			return
		}
	}
}

// dropFrom takes the lock from one goroutine, if that has it. Precondition: holders is locked.
func dropFrom(g uint64, lock any) bool {
	mine := holders.of[g]
	for i := len(mine) - 1; i >= 0; i-- {
		if mine[i].lock != lock {
			continue
		}
		if mine = slices.Delete(mine, i, i+1); len(mine) == 0 {
			delete(holders.of, g)
		} else {
			holders.of[g] = mine
		}
		return true
	}
	return false
}

// goroutine is the number of the calling goroutine, which the first line of its stack begins with: "goroutine 7 [running]:".
func goroutine() uint64 {
	var buf [64]byte
	fields := bytes.Fields(buf[:runtime.Stack(buf[:], false)])
	n, err := strconv.ParseUint(string(fields[1]), 10, 64)
	if err != nil {
		panic(err)
	}
	return n
}

func frames(stack []uintptr) string {
	var b bytes.Buffer
	for frames := runtime.CallersFrames(stack); ; {
		f, more := frames.Next()
		fmt.Fprintf(&b, "\t%s\n\t\t%s:%d\n", f.Function, f.File, f.Line)
		if !more {
			return b.String()
		}
	}
}
