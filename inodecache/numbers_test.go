package inodecache

import (
	"sync"
	"testing"
)

func TestOneDeviceKeepsItsNumbers(t *testing.T) {
	n := NewNumbers([]uint64{7}, 64, 64)
	for _, ino := range []uint64{1, 2, 1 << 63, ^uint64(0) >> 1} {
		if got := n.Of(Key{7, ino}); got != ino {
			t.Errorf("Of(%d) = %d", ino, got)
		}
	}
}

func TestManyDevicesShareTheRange(t *testing.T) {
	for _, devices := range []int{2, 3, 4, 7, 8, 500} {
		var devs []uint64
		for i := range devices {
			devs = append(devs, uint64(1000+i))
		}
		n := NewNumbers(devs, 64, 64)
		seen := map[uint64]Key{}
		for _, dev := range devs {
			for _, ino := range []uint64{1, 2, 1<<32 - 1, 1 << 40} {
				k := Key{dev, ino}
				got := n.Of(k)
				if other, ok := seen[got]; ok {
					t.Fatalf("%d devices: %v and %v are both %#x", devices, other, k, got)
				}
				seen[got] = k
				if again := n.Of(k); again != got {
					t.Fatalf("%v is %#x and then %#x", k, got, again)
				}
				if got&(1<<n.shift-1) != ino {
					t.Errorf("%d devices: %v has the number %#x, which does not end in its own", devices, k, got)
				}
			}
		}
		if again := NewNumbers(devs, 64, 64); again.Of(Key{devs[1], 5}) != n.Of(Key{devs[1], 5}) {
			t.Error("another mount of the same layers has other numbers")
		}
	}
}

func TestTheFirstDeviceKeepsItsOwn(t *testing.T) {
	n := NewNumbers([]uint64{1, 2}, 64, 64)
	if got := n.Of(Key{1, 12345}); got != 12345 {
		t.Errorf("Of = %d", got)
	}
}

// TestNumbersThatDoNotFit checks the numbers of objects whose own number does not fit. No other
// object may have such a number, now or later, for any number of devices.
func TestNumbersThatDoNotFit(t *testing.T) {
	for _, devs := range [][]uint64{{1}, {1, 2}, {1, 2, 3}, {1, 2, 3, 4, 5, 6, 7}} {
		n := NewNumbers(devs, 64, 64)
		keys := []Key{{99, 1}, {98, 1}, {99, 2}} // no layer is on these devices
		if len(devs) > 1 {
			keys = append(keys, Key{1, 1 << 63}, Key{2, ^uint64(0)}, Key{2, 1 << n.room})
		}
		seen := map[uint64]Key{}
		for _, dev := range devs {
			for _, ino := range []uint64{1, 2} {
				k := Key{dev, ino}
				seen[n.Of(k)] = k
			}
		}
		for _, k := range keys {
			got := n.Of(k)
			if other, ok := seen[got]; ok {
				t.Fatalf("%v: %v and %v are both %#x", devs, other, k, got)
			}
			seen[got] = k
			if n.Of(k) != got {
				t.Fatalf("the number of %v changes", k)
			}
			if len(devs) > 1 && got>>n.shift != 1<<(64-n.shift)-1 {
				t.Errorf("%v has %#x, outside the range of numbers that do not fit", k, got)
			}
		}
	}
}

func TestCopyUpKeepsTheNumber(t *testing.T) {
	n := NewNumbers([]uint64{1, 2}, 64, 64)
	lower, upper := Key{2, 10}, Key{1, 20}
	ino := n.Of(lower)
	n.SetOrigin(upper, ino)
	if got := n.Of(upper); got != ino {
		t.Fatalf("%#x after the copy-up, %#x before", got, ino)
	}
	n.SetOrigin(upper, n.own(upper)) // a new object without an origin has the inode
	if got := n.Of(upper); got != 20 {
		t.Fatalf("a new object has the number %#x of an old one", got)
	}
}

func TestForgottenObjects(t *testing.T) {
	n := NewNumbers([]uint64{1}, 64, 64)
	k, foreign := Key{1, 20}, Key{9, 1}
	n.SetOrigin(k, 10)
	first := n.Of(foreign)
	n.Forget(k)
	n.Forget(foreign)
	if got := n.Of(k); got != 20 {
		t.Errorf("the inode's next object has number %d", got)
	}
	if got := n.Of(foreign); got == first {
		t.Error("a number was given twice, while the kernel may know the first object")
	}
	if len(n.origins) != 0 || len(n.extra) != 1 {
		t.Errorf("left: %v %v", n.origins, n.extra)
	}
}

func TestConcurrentNumbers(t *testing.T) {
	n := NewNumbers([]uint64{1, 2}, 64, 64)
	var wg sync.WaitGroup
	for range 4 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for i := range uint64(500) {
				foreign := Key{9, i % 10}
				if n.Of(foreign) == 0 {
					t.Error("no number")
				}
				n.SetOrigin(Key{1, i}, i+1000)
				n.Of(Key{1, i})
				n.Forget(Key{1, i})
			}
		}()
	}
	wg.Wait()
	if len(n.extra) != 10 {
		t.Errorf("%d numbers for 10 objects", len(n.extra))
	}
}

// TestRecall checks that an object has the number of its origin, unless another object has the same
// origin.
func TestRecall(t *testing.T) {
	n := NewNumbers([]uint64{1, 2}, 64, 64)
	lower, upper, double, other := Key{2, 7}, Key{1, 20}, Key{1, 21}, Key{1, 22}
	n.Recall(upper, lower)
	n.Recall(double, lower)
	if n.Of(upper) != n.Of(lower) || !n.HasOrigin(upper) {
		t.Errorf("the copy is %#x, the origin %#x", n.Of(upper), n.Of(lower))
	}
	if n.Of(double) != double.Ino || n.HasOrigin(double) {
		t.Errorf("a second one has the number %#x", n.Of(double))
	}
	n.Recall(upper, Key{2, 8})
	n.SetOrigin(other, 99)
	n.Recall(other, Key{2, 9})
	if n.Of(upper) != n.Of(lower) || n.Of(other) != 99 {
		t.Error("Recall changed a known number")
	}
	n.Forget(upper)
	if n.Of(upper) != upper.Ino {
		t.Error("a new object of an old inode has the old origin")
	}
	n.Recall(double, lower)
	if n.Of(double) != n.Of(lower) {
		t.Error("Recall does not give the number of a removed object again")
	}
	n.Recall(Key{1, 5}, Key{1, 5})
	if n.HasOrigin(Key{1, 5}) {
		t.Error("an object is its own origin")
	}
}

// TestSetOriginTakesTheNumber checks that SetOrigin gives a number that another object has. The
// mount has shown the lower's object with that number before.
func TestSetOriginTakesTheNumber(t *testing.T) {
	n := NewNumbers([]uint64{1}, 64, 64)
	n.Recall(Key{1, 20}, Key{1, 7})
	n.SetOrigin(Key{1, 30}, 7)
	n.Forget(Key{1, 20})
	n.Recall(Key{1, 40}, Key{1, 7})
	if n.Of(Key{1, 30}) != 7 || n.Of(Key{1, 40}) != 40 {
		t.Errorf("%d, %d", n.Of(Key{1, 30}), n.Of(Key{1, 40}))
	}
}

// TestNarrowNumbers checks that the index is in the upper half if the inodes have numbers of 32
// bits, as in the kernel (xino_mode 32 of ovl_fill_super).
func TestNarrowNumbers(t *testing.T) {
	n := NewNumbers([]uint64{1, 2, 3}, 64, 32)
	for k, want := range map[Key]uint64{{1, 5}: 5, {2, 5}: 2<<32 | 5, {3, 1<<32 - 1}: 4<<32 | 1<<32 - 1} {
		if got := n.Of(k); got != want {
			t.Errorf("%v is %#x, want %#x", k, got, want)
		}
	}
	if got := n.Of(Key{2, 1 << 32}); got != ^uint64(0)-1 {
		t.Errorf("a number of more than 32 bits is %#x", got)
	}
	if got := NewNumbers([]uint64{1}, 64, 32).Of(Key{1, 5}); got != 5 {
		t.Errorf("with one device: %#x", got)
	}
	if got := NewNumbers([]uint64{1, 2}, 32, 32).Of(Key{2, 5}); got != 1<<31|5 {
		t.Errorf("with numbers of 32 bits: %#x", got)
	}
}
