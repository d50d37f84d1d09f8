package inodecache

import (
	"math/bits"
	"sync"
)

// Numbers gives every object of the stack an inode number that no other object has while both exist.
//
// Where all layers share one file system it is the object's own. Otherwise the file system's index, in the order of
// [NewNumbers], stands in the top bits, as the kernel's xino does:
//
//	63 ........... 63-b | ................ 0
//	index of the device | the object's own
//
// With 32 bits in place of 64 where they are asked for (option ino32_t). A number too large for the lower bits, or of a device that is not among the layers' (a mount or subvolume inside a
// layer), gets one from the range whose top bits are all ones. A copied-up object keeps the number of its lower.
type Numbers struct {
	devs  []uint64 // immutable
	width uint     // bits of a number; immutable
	shift uint     // where the index begins; immutable

	mu      sync.RWMutex // guards the rest
	extra   map[Key]uint64
	next    uint64 // how many extra numbers were ever given
	origins map[Key]uint64
}

// NewNumbers takes the devices of the layers' roots, without duplicates, and how many bits a number may have, 64 or 32.
func NewNumbers(devs []uint64, width uint) *Numbers {
	n := &Numbers{devs: devs, width: width, shift: width, extra: map[Key]uint64{}, origins: map[Key]uint64{}}
	if len(devs) > 1 || width < 64 {
		n.shift = width - uint(bits.Len(uint(len(devs)))) // one value more than devices: all ones is the extra range
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
		if k.Ino>>n.shift == 0 { // always, with one device and 64 bits
			return uint64(i)<<n.shift | k.Ino
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	ino, ok := n.extra[k]
	if !ok {
		n.next++
		ino = ^uint64(0)>>(64-n.width) - n.next
		n.extra[k] = ino
	}
	return ino
}

// SetOrigin makes ino the number of the copied-up object k from now on.
func (n *Numbers) SetOrigin(k Key, ino uint64) {
	own := n.own(k)
	n.mu.Lock()
	defer n.mu.Unlock()
	if own == ino {
		delete(n.origins, k) // of an object that had the inode before
		return
	}
	n.origins[k] = ino
}

// Gone forgets an object that has been removed: its inode may be given to another.
func (n *Numbers) Gone(k Key) {
	n.mu.Lock()
	delete(n.origins, k)
	delete(n.extra, k)
	n.mu.Unlock()
}
