package inodecache

import (
	"sync/atomic"

	"github.com/fuse-overlay/fuse-overlay/internal/lock"
)

// RootID is the node id of the root (FUSE_ROOT_ID).
const RootID = 1

// Entry is the part of a node that the table uses; embed it.
type Entry struct {
	id      atomic.Uint64 // changes once at most, by Renew
	lookups uint64        // lookup count, or dropped; guarded by the mutex of the id's shard
}

// dropped is the lookup count of an entry that is not in the table any more.
const dropped = ^uint64(0)

// renewed is the bit in which the second id of a node differs from the first. Both are in one
// shard.
const renewed = 1 << 63

// ID returns the node id for replies to the kernel: the second id, if there is one; 0 before
// Insert.
func (e *Entry) ID() uint64 { return e.id.Load() }

// Serial returns the first id of the node, which never changes.
func (e *Entry) Serial() uint64 { return e.id.Load() &^ renewed }

// CacheEntry returns e. The table calls it to reach the entry of a node.
func (e *Entry) CacheEntry() *Entry { return e }

// Node is what a [Table] holds: a pointer to a struct that embeds [Entry].
type Node interface {
	comparable
	CacheEntry() *Entry
}

// Key identifies an object of a layer: a device and an inode number.
type Key struct{ Dev, Ino uint64 }

// shards is the number of parts of the table, so that requests about different nodes seldom wait
// for the same mutex.
const shards = 64

type shard[N Node] struct {
	mu    lock.Mutex[lock.Leaf] // guards nodes and the Entry of each node in it
	nodes map[uint64]N
	_     [40]byte // each shard has a cache line of its own
}

// Table maps node ids to nodes. It never uses an id twice. A node may have two ids, see
// [Table.Renew], and has one lookup count for both.
type Table[N Node] struct {
	shard [shards]shard[N]
	last  atomic.Uint64
	count atomic.Int64

	sampled atomic.Uint32

	linkMu lock.Mutex[lock.Linked] // guards links; taken before a shard's mutex
	links  map[Key]N
}

// NewTable returns an empty table. The first node that the caller inserts is the root.
func NewTable[N Node]() *Table[N] {
	t := &Table[N]{links: map[Key]N{}}
	for i := range t.shard {
		t.shard[i].nodes = map[uint64]N{}
	}
	return t
}

func (t *Table[N]) of(id uint64) *shard[N] { return &t.shard[id%shards] }

// Insert gives n the next id and a lookup count of 1.
func (t *Table[N]) Insert(n N) {
	e := n.CacheEntry()
	id := t.last.Add(1)
	e.id.Store(id)
	e.lookups = 1
	s := t.of(id)
	s.mu.Lock()
	s.nodes[id] = n
	s.mu.Unlock()
	t.count.Add(1)
}

// Renew gives n a second id, which is another inode for the kernel. The first id still leads to n.
// Renew does nothing if n has two ids already, or is dropped.
func (t *Table[N]) Renew(n N) {
	e := n.CacheEntry()
	s := t.of(e.ID())
	s.mu.Lock()
	defer s.mu.Unlock()
	if id := e.ID(); id&renewed == 0 && e.lookups != dropped {
		s.nodes[id|renewed] = n
		e.id.Store(id | renewed)
	}
}

// Get returns the node with an id.
func (t *Table[N]) Get(id uint64) (N, bool) {
	s := t.of(id)
	s.mu.Lock()
	n, ok := s.nodes[id]
	s.mu.Unlock()
	return n, ok
}

// Ref adds 1 to the lookup count. It returns false if n is dropped.
func (t *Table[N]) Ref(n N) bool {
	e := n.CacheEntry()
	s := t.of(e.ID())
	s.mu.Lock()
	defer s.mu.Unlock()
	if e.lookups == dropped {
		return false
	}
	e.lookups++
	return true
}

// Unref subtracts k from the lookup count of the node with an id (FORGET), down to 0 at most. last
// reports whether the count is 0. If there is no such node, n is the zero value and last is false.
func (t *Table[N]) Unref(id, k uint64) (n N, last bool) {
	s := t.of(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	n, ok := s.nodes[id]
	if !ok {
		return n, false
	}
	e := n.CacheEntry()
	e.lookups -= min(k, e.lookups)
	return n, e.lookups == 0
}

// Drop removes n from the table if its lookup count is 0, and reports whether it did. It does not
// remove the root.
func (t *Table[N]) Drop(n N) bool {
	e := n.CacheEntry()
	s := t.of(e.ID())
	s.mu.Lock()
	defer s.mu.Unlock()
	if e.lookups != 0 || e.ID() == RootID {
		return false
	}
	e.lookups = dropped
	delete(s.nodes, e.ID())
	delete(s.nodes, e.Serial())
	t.count.Add(-1)
	return true
}

// Dropped reports whether [Table.Drop] has removed n.
func (t *Table[N]) Dropped(n N) bool {
	e := n.CacheEntry()
	s := t.of(e.ID())
	s.mu.Lock()
	defer s.mu.Unlock()
	return e.lookups == dropped
}

// Len returns the number of nodes.
func (t *Table[N]) Len() int { return int(t.count.Load()) }

// Made returns the number of nodes that were ever inserted.
func (t *Table[N]) Made() uint64 { return t.last.Load() }

// Sample returns up to limit nodes for which f returns true. They come from all shards, and each
// call returns others. Sample calls f under the mutex of a shard, so f must not use the table.
func (t *Table[N]) Sample(limit int, f func(N) bool) []N {
	some := make([]N, 0, min(limit, t.Len()))
	each := limit/shards + 1
	first := int(t.sampled.Add(1))
	for i := range shards {
		if len(some) == limit {
			break
		}
		s := &t.shard[(first+i)%shards]
		s.mu.Lock()
		taken := 0
		for _, n := range s.nodes { // in Go's random order
			if taken == each || len(some) == limit {
				break
			}
			if f(n) {
				some = append(some, n)
				taken++
			}
		}
		s.mu.Unlock()
	}
	return some
}

// Linked returns the node of an object with several names, and adds 1 to its lookup count. It
// returns false if the object has no node. A node for which isOf returns false is that of another
// object, which has had the key before: it loses the key. isOf must not use the table.
func (t *Table[N]) Linked(k Key, isOf func(N) bool) (N, bool) {
	t.linkMu.Lock()
	defer t.linkMu.Unlock()
	n, ok := t.links[k]
	switch {
	case ok && !isOf(n):
		delete(t.links, k)
	case ok && t.Ref(n):
		return n, true
	}
	var none N
	return none, false
}

// Link makes n the node of the object k and returns n. If the object has another node, Link adds 1
// to the lookup count of that node and returns it; made is false.
func (t *Table[N]) Link(k Key, n N) (node N, made bool) {
	t.linkMu.Lock()
	defer t.linkMu.Unlock()
	return t.linkLocked(k, n)
}

// LinkWhile is Link, if isValid returns true after it: otherwise the object has no node, made is
// false and node is n. No other goroutine gets n before isValid has returned. isValid must not use
// the table.
func (t *Table[N]) LinkWhile(k Key, n N, isValid func() bool) (node N, made bool) {
	t.linkMu.Lock()
	defer t.linkMu.Unlock()
	node, made = t.linkLocked(k, n)
	if made && !isValid() {
		delete(t.links, k)
		return n, false
	}
	return node, made
}

// linkLocked is Link. Preconditions: linkMu is held.
func (t *Table[N]) linkLocked(k Key, n N) (node N, made bool) {
	if first, ok := t.links[k]; ok && first != n && t.Ref(first) {
		return first, false
	}
	t.links[k] = n
	return n, true
}

// Unlink removes the node of the object k if that is n.
func (t *Table[N]) Unlink(k Key, n N) {
	t.linkMu.Lock()
	if t.links[k] == n {
		delete(t.links, k)
	}
	t.linkMu.Unlock()
}
