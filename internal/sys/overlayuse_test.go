package sys

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fuse-overlay/fuse-overlay/internal/host"
)

// overlayIn is overlayOf the one entry of a mount table.
func overlayIn(line string) (m overlayMount, ok bool) {
	for _, e := range host.ParseMountTable(line) {
		m, ok = overlayOf(e)
	}
	return m, ok
}

func TestParseOverlay(t *testing.T) {
	const line = `57 29 0:45 / /m\040nt rw,relatime shared:1 - overlay over\040lay rw,lowerdir=/l,upperdir=/u\054p,workdir=/w\134,index=on` + "\n"
	m, ok := overlayIn(line)
	if want := (overlayMount{unix.Mkdev(0, 45), "/m nt", "/u,p", `/w\`}); !ok || m != want {
		t.Errorf("%+v, %v; want %+v", m, ok, want)
	}
	for _, line := range []string{
		"", "57 29 0:45 / /mnt rw", "57 29 0:45 / /mnt rw - overlay", "57 29 0:45 / /mnt rw - ext4 /dev/a rw,upperdir=/u,workdir=/w",
		"57 29 0:45 / /mnt rw - overlay o ro,lowerdir=/a:/b", "57 29 0:45 / /mnt rw - overlay o rw,lowerdir=l,upperdir=u,workdir=w",
	} {
		if m, ok := overlayIn(line); ok {
			t.Errorf("%q: %+v", line, m)
		}
	}
}

func TestKernelOverlay(t *testing.T) {
	base := t.TempDir()
	at := func(name string) string { return filepath.Join(base, name) }
	for _, name := range []string{"lower", "upper", "work", "mnt", "other"} {
		must(t, os.Mkdir(at(name), 0o755))
	}
	open := func(name string) *Dir {
		t.Helper()
		d, other, err := OpenUpper(at(name), at("other"), 0)
		must(t, err)
		other.Close()
		t.Cleanup(d.Close)
		return d
	}
	upper, work, other := open("upper"), open("work"), open("other")
	expect := func(point string, which int, dirs ...*Dir) {
		t.Helper()
		if got, i, err := KernelOverlay(dirs...); err != nil || got != point || i != which {
			t.Errorf("on %q, %d (%v); want %q, %d", got, i, err, point, which)
		}
	}
	expect("", 0, upper, work)
	data := "lowerdir=" + at("lower") + ",upperdir=" + at("upper") + ",workdir=" + at("work")
	must(t, unix.Mount("overlay", at("mnt"), "overlay", 0, data))
	mounted := true
	t.Cleanup(func() {
		if mounted {
			must(t, unix.Unmount(at("mnt"), 0))
		}
	})
	expect(at("mnt"), 0, upper, work)
	expect(at("mnt"), 1, other, work)
	expect("", 0, other)
	must(t, os.WriteFile(at("mnt/f"), nil, 0o600)) // times change together
	expect(at("mnt"), 0, upper)
	// Other directories at those paths are not used by the mount.
	must(t, os.Rename(at("upper"), at("moved")))
	must(t, os.Mkdir(at("upper"), 0o755))
	expect("", 0, open("upper"), other)
	must(t, os.Remove(at("upper")))
	must(t, os.Rename(at("moved"), at("upper")))
	expect(at("mnt"), 0, open("upper"))

	SetFault(func(op Op) error {
		if op.Call == "open" {
			return unix.EIO
		}
		return nil
	})
	_, _, err := KernelOverlay(upper)
	SetFault(nil)
	want(t, "a table that cannot be read", err, unix.EIO)
	must(t, unix.Unmount(at("mnt"), 0))
	mounted = false
	expect("", 0, upper, work)
}
