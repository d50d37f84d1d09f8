package inodecache

import "testing"

func TestClaims(t *testing.T) {
	c := NewClaims[string]()
	first, second := Key{1, 10}, Key{1, 20}
	claim := func(ino uint64, holder string, key Key, want bool) {
		t.Helper()
		if got := c.Claim(ino, holder, key); got != want {
			t.Errorf("%s claims %d: %v", holder, ino, got)
		}
	}
	claim(7, "a", first, true)
	claim(7, "a", first, true)
	claim(8, "other", Key{1, 30}, true)
	if !c.Free(7, "a") || c.Free(7, "b") || !c.Free(9, "b") {
		t.Error("the wrong numbers are free")
	}
	// If no other object has claimed the number, it is free after the holder's Release.
	c.Release(7, "a", first)
	claim(7, "b", second, true)
	claim(7, "a", first, false)
	// If another object has claimed the number, it stays reserved for the key of the holder.
	c.Release(7, "a", first) // not the holder
	claim(7, "a", first, false)
	c.Release(7, "b", second)
	if c.Free(7, "b again") {
		t.Error("7 is free, though only one of two gets it")
	}
	claim(7, "a again", first, false)
	claim(7, "b again", second, true)
	c.Remove(7, "b again")
	claim(7, "a at last", first, true)
	c.Release(8, "other", Key{1, 30})
	if len(c.holders) != 1 || len(c.shared) != 0 {
		t.Errorf("left: %v, %v", c.holders, c.shared)
	}
}
