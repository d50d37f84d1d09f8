package inodecache

import (
	"math/bits"

	"github.com/fuse-overlay/fuse-overlay/internal/lock"
)

// Numbers gives every object of the stack an inode number that no other object has while both exist.
//
// Where all layers share one file system it is the object's own. Otherwise the file system's index, in the order of
// [NewNumbers], stands in the top bits, as the kernel's overlayfs has it with xino=on (ovl_map_dev_ino of
// fs/overlayfs/inode.c), with the same numbers:
//
//	63 ........... | a 0 | ................ 0
//	index of the device  | the object's own
//
// Where no object of any layer has a number of more than 32 bits, the index begins at bit 33 (bit 32 is the one after the
// index), as in the kernel. Numbers have 32 bits in place of 64 with the option ino32_t. A number too large for the lower bits, or of a device
// that is not among the layers' (a mount or subvolume inside a layer), gets one from the top of the range, in which the bit
// after the index is 1. A copied-up object keeps the number of its lower.
type Numbers struct {
	devs  []uint64 // immutable
	width uint     // bits of a number; immutable
	shift uint     // where the index begins; immutable
	room  uint     // bits of an object's own number; immutable

	mu      lock.RWMutex[lock.Leaf] // guards the rest
	extra   map[Key]uint64
	next    uint64 // how many extra numbers were ever given
	origins map[Key]uint64
	copies  map[uint64]Key // origins, by the number
	aliases map[alias]uint64
}

// alias is an object that would have the number of another.
type alias struct {
	object Key
	ino    uint64
}

// NewNumbers takes the devices of the layers' roots, without duplicates. width is how many bits a
// number may have, 64 or 32. own is how many bits the objects' own numbers have at most: 32, or 64
// if that is not known.
func NewNumbers(devs []uint64, width, own uint) *Numbers {
	n := &Numbers{
		devs: devs, width: width, shift: width, room: width,
		extra: map[Key]uint64{}, origins: map[Key]uint64{}, copies: map[uint64]Key{},
		aliases: map[alias]uint64{},
	}
	if len(devs) > 1 || width < 64 {
		n.shift = width - uint(bits.Len(uint(len(devs)-1)))
		n.room = n.shift - 1
	}
	if len(devs) > 1 && own < n.room {
		n.room, n.shift = own, own+1
	}
	return n
}

// Of returns the number of an object of a layer.
func (n *Numbers) Of(k Key) uint64 {
	n.mu.RLock()
	origin, ok := n.origins[k]
	n.mu.RUnlock()
	if ok {
		return origin
	}
	return n.own(k)
}

func (n *Numbers) own(k Key) uint64 {
	for i, dev := range n.devs {
		if dev != k.Dev {
			continue
		}
		if k.Ino>>n.room == 0 { // always, with one device and 64 bits
			return uint64(i)<<n.shift | k.Ino
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	ino, ok := n.extra[k]
	if !ok {
		ino = n.freshLocked()
		n.extra[k] = ino
	}
	return ino
}

// freshLocked returns a number from the top of the range that no object has had. Precondition: n.mu is held.
func (n *Numbers) freshLocked() uint64 {
	n.next++
	return ^uint64(0)>>(64-n.width) - n.next
}

// Another returns the number of an object that would have ino, which another object has: the same for the same object, and
// no other object's.
func (n *Numbers) Another(object Key, ino uint64) uint64 {
	n.mu.Lock()
	defer n.mu.Unlock()
	at := alias{object, ino}
	if _, ok := n.aliases[at]; !ok {
		n.aliases[at] = n.freshLocked()
	}
	return n.aliases[at]
}

// SetOrigin makes ino the number of the copied-up object k from now on.
func (n *Numbers) SetOrigin(k Key, ino uint64) {
	own := n.own(k)
	n.mu.Lock()
	defer n.mu.Unlock()
	n.forgetOrigin(k) // of an object that had the inode before
	if own != ino {
		n.origins[k], n.copies[ino] = ino, k
	}
}

// Recall gives the object k the number of its origin, which the layers tell of; not where another object has said the same of
// itself, as a copy with all attributes does, for then two objects would have one number. What is known already stays.
func (n *Numbers) Recall(k, origin Key) {
	ino := n.own(origin)
	n.mu.Lock()
	defer n.mu.Unlock()
	if _, taken := n.copies[ino]; taken {
		return
	}
	if _, known := n.origins[k]; !known && k != origin {
		n.origins[k], n.copies[ino] = ino, k
	}
}

// HasOrigin reports whether k has another number than its own.
func (n *Numbers) HasOrigin(k Key) bool {
	n.mu.RLock()
	defer n.mu.RUnlock()
	_, ok := n.origins[k]
	return ok
}

// Gone forgets an object that has been removed: its inode may be given to another.
func (n *Numbers) Gone(k Key) {
	n.mu.Lock()
	n.forgetOrigin(k)
	delete(n.extra, k)
	n.mu.Unlock()
}

// forgetOrigin gives k its own number back. Precondition: n.mu is held.
func (n *Numbers) forgetOrigin(k Key) {
	ino, ok := n.origins[k]
	if !ok {
		return
	}
	delete(n.origins, k)
	if n.copies[ino] == k {
		delete(n.copies, ino)
	}
}
