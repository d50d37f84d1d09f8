package inodecache

import (
	"math/bits"

	"github.com/fuse-overlay/fuse-overlay/internal/lock"
)

// Numbers gives every object of the stack an inode number. No two objects that exist at the same
// time have the same number.
//
// If all layers are on one file system, the number is that of the object's inode. Otherwise the top
// bits hold the index of the file system, in the order of [NewNumbers]. These are the numbers of
// the kernel's overlayfs with xino=on (ovl_map_dev_ino in fs/overlayfs/inode.c):
//
//	63 ...........            | 0 | ................ 0
//	index of the file system  |   | number of the inode
//
// If no inode of any layer has a number of more than 32 bits, the index begins at bit 33. Bit 32 is
// 0, as in the kernel. With option ino32_t numbers have 32 bits in place of 64.
//
// An object gets a number from the top of the range in two cases: the number of its inode is too
// large for the lower bits, or its device is not that of a layer. The device can be that of a mount
// or subvolume inside a layer. In such numbers the bit after the index is 1.
//
// A copied-up object has the number of its lower's object.
type Numbers struct {
	devs  []uint64 // immutable
	width uint     // bits of a number; immutable
	shift uint     // the lowest bit of the index; immutable
	room  uint     // bits for the number of an inode; immutable

	mu      lock.RWMutex[lock.Leaf] // guards the rest
	extra   map[Key]uint64
	taken   uint64 // how many numbers freshLocked has returned
	origins map[Key]uint64
	copies  map[uint64]Key // the inverse of origins
	aliases map[alias]uint64
}

// alias is an object that would have the number of another.
type alias struct {
	object Key
	ino    uint64
}

// NewNumbers returns the numbers for layers whose roots are on devs, which has no duplicates. width
// is the number of bits of an inode number, 64 or 32. own is the most bits of the numbers of the
// layers' inodes: 32, or 64 if the caller does not know.
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

// freshLocked returns a new number from the top of the range. Precondition: n.mu is held.
func (n *Numbers) freshLocked() uint64 {
	n.taken++
	return ^uint64(0)>>(64-n.width) - n.taken
}

// Alias returns a number for an object that would have ino, for the case that another object has
// ino. Each call for the object and ino returns the same number.
func (n *Numbers) Alias(object Key, ino uint64) uint64 {
	n.mu.Lock()
	defer n.mu.Unlock()
	at := alias{object, ino}
	if _, ok := n.aliases[at]; !ok {
		n.aliases[at] = n.freshLocked()
	}
	return n.aliases[at]
}

// SetOrigin gives ino to the copied-up object k.
func (n *Numbers) SetOrigin(k Key, ino uint64) {
	own := n.own(k)
	n.mu.Lock()
	defer n.mu.Unlock()
	n.forgetOriginLocked(k) // that of an earlier object with this inode
	if own != ino {
		n.origins[k], n.copies[ino] = ino, k
	}
}

// Recall gives the object k the number of its origin, which the upper has stored. It does nothing
// if another object has that number, because a process may have copied an object of the upper with
// all attributes. It does not change a number that SetOrigin has given.
func (n *Numbers) Recall(k, origin Key) {
	ino := n.own(origin)
	n.mu.Lock()
	defer n.mu.Unlock()
	if _, used := n.copies[ino]; used {
		return
	}
	if _, known := n.origins[k]; !known && k != origin {
		n.origins[k], n.copies[ino] = ino, k
	}
}

// HasOrigin reports whether k has another number than that of its inode.
func (n *Numbers) HasOrigin(k Key) bool {
	n.mu.RLock()
	defer n.mu.RUnlock()
	_, ok := n.origins[k]
	return ok
}

// Forget forgets a removed object: the file system may give its inode to another object.
func (n *Numbers) Forget(k Key) {
	n.mu.Lock()
	n.forgetOriginLocked(k)
	delete(n.extra, k)
	n.mu.Unlock()
}

// forgetOriginLocked gives k the number of its inode. Precondition: n.mu is held.
func (n *Numbers) forgetOriginLocked(k Key) {
	ino, ok := n.origins[k]
	if !ok {
		return
	}
	delete(n.origins, k)
	if n.copies[ino] == k {
		delete(n.copies, ino)
	}
}
