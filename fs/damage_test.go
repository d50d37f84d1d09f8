package fs

import (
	"fmt"
	"testing"
	"time"
)

// Each reason has at most one line a second, with the number of failures that were not logged.
func TestDamageLog(t *testing.T) {
	var l damageLog
	start := time.Unix(1000, 0)
	for _, c := range []struct {
		after  time.Duration
		reason string
		more   int
		due    bool
	}{
		{0, "a", 0, true},
		{0, "a", 0, false},
		{0, "b", 0, true},
		{999 * time.Millisecond, "a", 0, false},
		{1000 * time.Millisecond, "a", 2, true},
		{1001 * time.Millisecond, "a", 0, false},
		{5 * time.Second, "a", 1, true},
		{7 * time.Second, "a", 0, true},
	} {
		if more, due := l.due(c.reason, start.Add(c.after)); more != c.more || due != c.due {
			t.Errorf("%s after %v: %d, %v; want %d, %v", c.reason, c.after, more, due, c.more, c.due)
		}
	}
	looks := 0
	for i := range 10 * mostDamageLooks {
		if l.mayLook(start.Add(time.Duration(i) * time.Millisecond)) {
			looks++
		}
	}
	if looks != mostDamageLooks {
		t.Errorf("%d failures of one second were looked into, want %d", looks, mostDamageLooks)
	}
	if !l.mayLook(start.Add(damageInterval)) {
		t.Error("none in the next second")
	}
}

func TestFileSystemNames(t *testing.T) {
	for magic, want := range map[uint32]string{0xef53: "ext4", 0x65735546: "fuse", 0x12345678: "file system 0x12345678"} {
		if got := fileSystemName(magic); got != want {
			t.Error(fmt.Sprintf("%#x", magic), got, want)
		}
	}
}
