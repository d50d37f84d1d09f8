package inodecache

import "github.com/fuse-overlay/fuse-overlay/internal/lock"

// Claims decides which of several objects has an inode number that all of them would have. These
// are directories that lead to one directory of a lower, by redirects or because one layer lies
// inside another. T stands for an object while it is known.
type Claims[T comparable] struct {
	mu      lock.Mutex[lock.Leaf] // guards the rest
	holders map[uint64]T
	// shared are the numbers that two objects have claimed. While no object holds such a number, it
	// stays reserved for the object whose key is here. So no object's number changes because others
	// have been forgotten.
	shared map[uint64]Key
}

// NewClaims returns an empty set.
func NewClaims[T comparable]() *Claims[T] {
	return &Claims[T]{holders: map[uint64]T{}, shared: map[uint64]Key{}}
}

// Claim reports whether ino is the number of holder, which is known again by key, from now on until Release.
func (c *Claims[T]) Claim(ino uint64, holder T, key Key) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now, held := c.holders[ino]; held {
		if now != holder {
			c.shared[ino] = key // until the holder's own is known, in Release
		}
		return now == holder
	}
	if of, shared := c.shared[ino]; shared && of != key {
		return false
	}
	c.holders[ino] = holder
	return true
}

// Free reports whether object may claim the number: no object has it, or object itself has it.
func (c *Claims[T]) Free(ino uint64, object T) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if holder, held := c.holders[ino]; held {
		return holder == object
	}
	_, shared := c.shared[ino]
	return !shared
}

// Release ends a claim, if holder has it: the object is forgotten, or removed.
func (c *Claims[T]) Release(ino uint64, holder T, key Key, removed bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now, held := c.holders[ino]; !held || now != holder {
		return
	}
	delete(c.holders, ino)
	if _, shared := c.shared[ino]; shared {
		c.shared[ino] = key
	}
	if removed {
		delete(c.shared, ino)
	}
}
