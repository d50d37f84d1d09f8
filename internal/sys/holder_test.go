package sys

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// What one holder publishes is read through any other descriptor of the directory, and ends with the holder's.
func TestHolder(t *testing.T) {
	path := t.TempDir()
	a, b := openPlain(t, path), openPlain(t, path)
	if h, ok := b.Holder(); ok {
		t.Fatalf("nobody holds it, but %+v does", h)
	}
	for _, want := range []Holder{
		{Dev: unix.Mkdev(0, 123), Mount: 1<<32 - 1, PID: 4567, PIDNamespace: 4026531836, MountNamespace: 4026531841},
		{Dev: unix.Mkdev(4095, 1<<20-1), PID: 1<<22 - 1, PIDNamespace: 1<<32 - 1, MountNamespace: 1<<32 - 1},
		{},
	} {
		d, err := a.OpenDir("")
		must(t, err)
		must(t, d.Lock())
		must(t, d.Publish(want))
		if got, ok := b.Holder(); !ok || got != want {
			t.Errorf("published %+v, read %+v, %v", want, got, ok)
		}
		if _, ok := d.Holder(); ok {
			t.Error("the holder takes itself for another one")
		}
		d.Close()
		if h, ok := b.Holder(); ok {
			t.Errorf("after its end: %+v", h)
		}
	}
}

func TestSelf(t *testing.T) {
	h := Self(Place{Namespace: 8, Mount: MountEntry{Dev: 7, ID: 6, Point: "/a"}})
	if _, ok := h.Find([]MountEntry{{ID: 6, Dev: 7, Point: "/b"}, {ID: 5, Dev: 7, Point: "/a"}, {ID: 6, Dev: 8, Point: "/a"}}); ok {
		t.Error("another mount is taken for the holder's")
	}
	if m, ok := h.Find([]MountEntry{{ID: 1}, {ID: 6, Dev: 7, Point: "/a", Type: "fuse.x"}}); !ok || m.Type != "fuse.x" {
		t.Errorf("the holder's mount is %+v, %v", m, ok)
	}
	if h.MountNamespace != 8 || h.KnownPID() != os.Getpid() || h.Dev != 7 {
		t.Errorf("this process: %+v", h)
	}
	h.PIDNamespace++
	if h.KnownPID() != 0 {
		t.Errorf("another one: %+v", h)
	}
}

func TestParseMountTable(t *testing.T) {
	got := parseMountTable(`36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue
61 36 0:53 / /a\040b\134c rw,relatime shared:2 - fuse.fuse-overlay fuse-overlay rw,user_id=0
a line that is none
`)
	want := []MountEntry{
		{36, unix.Mkdev(98, 0), "/mnt2", "ext3"}, {61, unix.Mkdev(0, 53), `/a b\c`, "fuse.fuse-overlay"},
	}
	if len(got) != len(want) || got[0] != want[0] || got[1] != want[1] {
		t.Errorf("got %+v, want %+v", got, want)
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
