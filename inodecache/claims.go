package inodecache

import "github.com/fuse-overlay/fuse-overlay/internal/lock"

// Claims gives an inode number to one of several objects that would have it. Such objects show the
// same directory of a lower, because of redirects or because one layer lies inside another. T
// identifies an object while its node exists.
type Claims[T comparable] struct {
	mu      lock.Mutex[lock.Leaf] // guards the rest
	holders map[uint64]T
	// shared has the numbers that two objects have claimed. While no object holds such a number, it
	// is reserved for the object with this key. So that object gets the number again after the
	// kernel has forgotten its node.
	shared map[uint64]Key
}

// NewClaims returns an empty set of claims.
func NewClaims[T comparable]() *Claims[T] {
	return &Claims[T]{holders: map[uint64]T{}, shared: map[uint64]Key{}}
}

// Claim claims ino for holder, until Release or Remove, and reports whether holder has it. key is
// the key of the object, which stays the same for its next node.
func (c *Claims[T]) Claim(ino uint64, holder T, key Key) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now, held := c.holders[ino]; held {
		if now != holder {
			c.shared[ino] = key // Release replaces it by the key of the holder
		}
		return now == holder
	}
	if of, shared := c.shared[ino]; shared && of != key {
		return false
	}
	c.holders[ino] = holder
	return true
}

// Free reports whether object may claim ino: no other object holds it, and it is not reserved.
func (c *Claims[T]) Free(ino uint64, object T) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if holder, held := c.holders[ino]; held {
		return holder == object
	}
	_, shared := c.shared[ino]
	return !shared
}

// Release ends the claim of holder, if it has one, because the kernel has forgotten its node. If
// another object has claimed the number too, it stays reserved for key.
func (c *Claims[T]) Release(ino uint64, holder T, key Key) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.endLocked(ino, holder) {
		return
	}
	if _, shared := c.shared[ino]; shared {
		c.shared[ino] = key
	}
}

// Remove ends the claim of holder, if it has one, because the object does not exist any more.
func (c *Claims[T]) Remove(ino uint64, holder T) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.endLocked(ino, holder) {
		delete(c.shared, ino)
	}
}

// endLocked ends the claim of holder, and reports whether it had one. Precondition: c.mu is held.
func (c *Claims[T]) endLocked(ino uint64, holder T) bool {
	now, held := c.holders[ino]
	if !held || now != holder {
		return false
	}
	delete(c.holders, ino)
	return true
}
