package host

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestParseMountTable(t *testing.T) {
	got := ParseMountTable(`36 35 98:0 /mnt1 /mnt2 ro,noatime master:1 - ext3 /dev/root rw,errors=continue
61 36 0:53 / /a\040b\134c rw,relatime shared:2 - fuse.fuse-overlay fuse-overlay rw,user_id=0
a line that is none
`)
	want := []MountEntry{
		{36, unix.Mkdev(98, 0), "/mnt1", "/mnt2", "ext3", "rw,errors=continue", true},
		{61, unix.Mkdev(0, 53), "/", `/a b\c`, "fuse.fuse-overlay", "rw,user_id=0", false},
	}
	if len(got) != len(want) || got[0] != want[0] || got[1] != want[1] {
		t.Errorf("got %+v, want %+v", got, want)
	}
	for name, want := range map[string]string{"user_id": "0", "rw": "", "user": "none"} {
		value, ok := got[1].Option(name)
		if !ok {
			value = "none"
		}
		if value != want {
			t.Errorf("option %s is %q, want %q", name, value, want)
		}
	}
}

func TestUnescapeOctal(t *testing.T) {
	for escaped, want := range map[string]string{`a\0`: `a\0`, `\999`: `\999`, `\134\040`: `\ `, ``: ``} {
		if got := UnescapeOctal(escaped); got != want {
			t.Errorf("%q: %q, want %q", escaped, got, want)
		}
	}
}

func TestMountPointsPath(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	must(t, err)
	must(t, os.Mkdir(dir+"/real", 0o700))
	must(t, os.Symlink("real", dir+"/link"))
	if got, err := RealPath(dir + "/link"); err != nil || got != dir+"/real" {
		t.Errorf("the path is %q, %v", got, err)
	}
	if _, err := RealPath(dir + "/none"); err != unix.ENOENT {
		t.Errorf("no path: %v", err)
	}
}
