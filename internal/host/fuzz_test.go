package host

import (
	"strings"
	"testing"
)

// Tables of /proc contain names that other users choose: mount points, sources, names of processes.
func FuzzTables(f *testing.F) {
	f.Add("36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue\n")
	f.Add("25 1 0:22 / /a\\040b ro - fuse.fuse-overlay x\\012y rw,user_id=0\n")
	f.Add("1: POSIX  ADVISORY  READ  5433 08:01:7864448 128 128\n2: -> FLOCK ADVISORY WRITE 1 0:1:2 0 EOF\n")
	f.Add("42 (a) b (c) S 1 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 12345 1 2\n")
	f.Fuzz(func(t *testing.T, text string) {
		for _, m := range ParseMountTable(text) {
			if m.Type == "" || m.Point == "" {
				t.Errorf("%q: an entry without a type or a place: %+v", text, m)
			}
			m.Option("user_id")
		}
		if n := len(ParseMountTable(text)); n > strings.Count(text, "\n")+1 {
			t.Errorf("%q: %d entries", text, n)
		}
		for _, l := range ParseFileLocks(text) {
			if l.Kind == "" || l.Inode == "" {
				t.Errorf("%q: a lock without a kind or an inode: %+v", text, l)
			}
		}
		if _, err := parseStart(text); err == nil && !strings.Contains(text, ")") && len(strings.Fields(text)) < 20 {
			t.Errorf("%q has a start", text)
		}
	})
}
